"""Ctrl-C at a terminal reaches every process: workers leave it to their parent from their birth."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHILDREN = """
import multiprocessing, signal
from cqr.interrupts import interrupts_held_back

def masked(answers):
    answers.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for _ in range(2):  # the first starts Python's tracker of resources, too
        ours, theirs = context.Pipe()
        with interrupts_held_back():
            process = context.Process(target=masked, args=(theirs,))
            process.start()
        print(ours.recv())
        process.join()
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


PARENT = """
import signal
from cqr.interrupts import interrupts_held_back

try:
    with interrupts_held_back():
        signal.raise_signal(signal.SIGINT)
        print("held")
except KeyboardInterrupt:
    print("seen")
"""


def test_no_process_started_within_sees_it(tmp_path):
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_the_parent_sees_it_at_the_end():
    done = subprocess.run(
        [sys.executable, "-c", PARENT], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["held", "seen"]


def workers(parent: int) -> list[Path]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"\nPPid:\t{parent}\n" in (entry / "status").read_text()
            if ours and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(entry)
        except OSError:
            continue
    return found


def test_scenes_end_in_one_sentence_though_workers_have_hardly_begun(tmp_path):
    line = [sys.executable, "-m", "cqr.cli", "scenes", "--out", tmp_path / "out", "--workers", "2"]
    parent = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(workers(parent.pid)) < 2:
        assert parent.poll() is None
        time.sleep(0.002)
    time.sleep(0.1)  # Python itself is loading there, and would say where it was
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "Traceback" not in errors
    last = "Interrupted: what was finished is kept; run the same command to go on."
    assert errors.splitlines()[-1] == last
