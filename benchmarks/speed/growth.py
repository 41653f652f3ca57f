"""Ten times the pictures, the queries, the gallery: does time grow as they do, and memory not?

    OMP_NUM_THREADS=1 python benchmarks/speed/growth.py [--pictures 60] [--queries 6000]
        [--gallery 6000]

Each row is done at its size and at ten times that, each in a process of its own on one thread:
`cqr extract --detector grid --workers 1` of random pictures of 320 x 240; ranking a gallery of
random vectors, 512 numbers each, for random queries, ten times as many of the one or the other.
Prints seconds of CPU time, of the work alone but for extraction, which counts from the start of
the program; and the anonymous memory at the peak, without files that are mapped, less what is held
before: of extraction that of the process itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    if sys.argv[1:2] == ["--rank"]:
        ranking(int(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser()
    for name, value in (("pictures", 60), ("queries", 6000), ("gallery", 6000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    o = parser.parse_args()
    report("pictures extracted", o.pictures, *map(extraction, (o.pictures, 10 * o.pictures)))
    ranks = [(o.queries, o.gallery), (10 * o.queries, o.gallery), (o.queries, 10 * o.gallery)]
    small, queries, gallery = (ranked(q, g) for q, g in ranks)
    report(f"queries, {o.gallery} images", o.queries, small, queries)
    report(f"gallery, {o.queries} queries", o.gallery, small, gallery)


def report(what: str, size: int, one: dict[str, float], ten: dict[str, float]) -> None:
    print(
        f"{what:22} {size:7,} {one['seconds']:7.2f} s {one['memory'] / 2**20:6.0f} MiB"
        f"   {10 * size:7,} {ten['seconds']:7.2f} s {ten['memory'] / 2**20:6.0f} MiB"
        f"   time x {ten['seconds'] / one['seconds']:.1f}, memory x"
        f" {ten['memory'] / one['memory']:.2f}",
        flush=True,
    )


def extraction(pictures: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        for number in range(pictures):
            pixels = rng.integers(0, 256, (240, 320, 3), np.uint8)
            Image.fromarray(pixels).save(Path(place, f"{number:06}.jpg"))
        command = [sys.executable, "-m", "cqr.cli", "extract", "--images", place, "--workers", "1"]
        command += ["--detector", "grid", "--out", f"{place}/out/x.h5", "--device", "cpu"]
        before = os.times()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        memory = peak(process.pid, lambda: process.poll() is None)
        after = os.times()
        seconds = after.children_user + after.children_system
        seconds -= before.children_user + before.children_system
        return {"seconds": seconds, "memory": memory}


def ranked(queries: int, gallery: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--rank", str(queries), str(gallery)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


def ranking(queries: int, gallery: int) -> None:
    import torch

    from cqr.trainer.ranking.metrics import rank

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    asked, there = (
        torch.from_numpy(rng.standard_normal((n, 512), np.float32)) for n in (queries, gallery)
    )
    correct = list(rng.integers(0, gallery, (queries, 1)))
    removed = np.full(queries, -1)
    rank(asked[:8], there[:64], removed[:8], [np.zeros(1, np.int64)] * 8)  # libraries are loaded
    before, ended = anonymous(os.getpid()), threading.Event()
    seen: list[float] = []
    watcher = threading.Thread(
        target=lambda: seen.append(peak(os.getpid(), lambda: not ended.is_set()))
    )
    watcher.start()
    began = time.process_time()
    rank(asked, there, removed, correct)
    seconds = time.process_time() - began
    ended.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "memory": seen[0] - before}))


def peak(process: int, runs: Callable[[], bool]) -> float:
    """The largest anonymous memory of a process while it runs, looked at every 5 ms."""
    most = 0.0
    while runs():
        most = max(most, anonymous(process))
        time.sleep(0.005)
    return most


def anonymous(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return 1024.0 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
