"""An extraction by Ray in processes of its own, slow enough to be disturbed."""

import os
import subprocess
import sys
import time
from pathlib import Path

from cqr.pipeline.feature_file import shards_folder
from cqr.pipeline.plan import Plan

PROMPT = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Else Ray's workers give way to all that runs beside them, and may come to nothing for minutes."""

FAKE = str(Path(__file__).parent / "fake_detector.py")


def same_plan(of: Path, to: Path) -> None:
    """Give `to` the plan of `of`: else the sets' ids, which shards hold, would differ."""
    shards_folder(to).mkdir(parents=True)
    Plan.load(shards_folder(of)).save(shards_folder(to))


def files(out: Path) -> dict[str, bytes]:
    """The shards and the list of failures."""
    found = [out.with_suffix(".failures.csv"), *shards_folder(out).glob("*.h5")]
    return {file.name: file.read_bytes() for file in found}


def start(folder: Path, out: str) -> subprocess.Popen:
    """Of the folder's `pictures`, 5 a shard, by one worker; `folder` tells its processes apart."""
    words = ["--images", "pictures", "--k", "18", "--shard", "5", "--out", out]
    return subprocess.Popen(
        [sys.executable, FAKE, "extract", *words, "--engine", "ray", "--workers", "1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **PROMPT, "FAKE_SLOW": "1", "FAKE_TAG": str(folder)},
        start_new_session=True,
    )


def wait_for_a_shard(out: Path, process: subprocess.Popen, more_than: int = 0) -> None:
    ends = time.monotonic() + 120  # Ray starts four programs, each of which is slow to start
    while len(list(shards_folder(out).glob("*.h5"))) <= more_than:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < ends, "no shard came"
        time.sleep(0.05)


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines by process id, of all that `start(folder, ...)` brought into being."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(folder).encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
    return found


def worker_of(folder: Path) -> int:
    """The process id of its only worker."""
    named = processes_of(folder).items()
    (worker,) = [pid for pid, name in named if name.startswith("ray::_Worker")]
    return worker


def wait_until_all_ended(folder: Path) -> None:
    """Some of Ray's notice by themselves that others are gone."""
    ends = time.monotonic() + 60
    while left := processes_of(folder):
        assert time.monotonic() < ends, f"still there: {left}"
        time.sleep(0.05)
