"""Ranking a gallery for many queries: ours beside faiss IndexFlatIP, in alternating rounds.

    pip install faiss-cpu
    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE python benchmarks/speed/ranking.py
        [--queries 33480] [--gallery 29789] [--dim 512] [--depth 50] [--rounds 5]

The defaults are the sizes of Fashion-200k's test split.  Vectors are random and
of length 1; each query has three random correct images.  Ours finds the best
DEPTH and the rank of the first correct image, however deep; faiss the best DEPTH
of an index that is built beforehand.  OMP_NUM_THREADS sets the threads of both.

Both run once to warm up, and what they found is compared; then come the rounds,
each timing one after the other.  Peak memory is the growth of the resident
memory in a process of its own, from when the vectors (and the index) are there.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
import torch

from cqr.trainer.ranking import metrics

Way = Callable[[], tuple[Any, Any]]


def main() -> None:
    parser = argparse.ArgumentParser()
    sizes = {"queries": 33480, "gallery": 29789, "dim": 512, "depth": 50, "rounds": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory-of", choices=("cqr", "faiss"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    if options.memory_of:
        print(growth(ways(options)[options.memory_of]))
        return
    print(
        f"{options.queries} queries, {options.gallery} images, d {options.dim}, "
        f"best {options.depth}, {threads} threads"
    )
    compare(ways(options), options.rounds)
    for name in ("cqr", "faiss"):
        command = [sys.executable, *sys.argv, "--memory-of", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{name:6}{int(done.stdout) / 2**20:8.0f} MiB more at the peak")


def ways(o: argparse.Namespace) -> dict[str, Way]:
    """Each returns Q x T places and Q x T scores."""
    rng = np.random.default_rng(0)
    queries, gallery = (
        torch.nn.functional.normalize(torch.from_numpy(rng.random((n, o.dim), np.float32) - 0.5))
        for n in (o.queries, o.gallery)
    )
    correct = list(rng.integers(0, o.gallery, (o.queries, 3)))
    reference = np.full(o.queries, -1)  # nothing removed: faiss could not
    index = faiss.IndexFlatIP(o.dim)
    index.add(gallery.numpy())

    def ours() -> tuple[Any, Any]:
        found = metrics.rank(queries, gallery, reference, correct, o.depth)
        return found.top, found.scores

    def theirs() -> tuple[Any, Any]:
        scores, places = index.search(queries.numpy(), o.depth)
        return places, scores

    return {"cqr": ours, "faiss": theirs}


def compare(ways: dict[str, Way], rounds: int) -> None:
    (places, scores), (their_places, their_scores) = ways["cqr"](), ways["faiss"]()
    # near-equal scores may change places by how a product is rounded
    print(f"{(places == their_places).mean():.4%} of the images found are the same")
    print(f"the scores differ by {np.abs(scores - their_scores).max():.1e} at most")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
        own, their = times["cqr"][-1], times["faiss"][-1]
        print(f"round {number + 1}: cqr {own:.2f} s, faiss {their:.2f} s, ratio {own / their:.2f}")
    ratio = median(own / their for own, their in zip(times["cqr"], times["faiss"], strict=True))
    own, their = median(times["cqr"]), median(times["faiss"])
    print(f"median:  cqr {own:.2f} s, faiss {their:.2f} s, ratio {ratio:.2f}")


def growth(way: Way) -> int:
    """Bytes by which the resident memory exceeds its start at the peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    way()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
