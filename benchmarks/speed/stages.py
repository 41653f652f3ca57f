"""Where the time of an extraction goes on a CPU, and what makes it less.

    python benchmarks/speed/stages.py shares --images photos --detector grid
    python benchmarks/speed/stages.py compare --images photos --detector grid

`shares`: which share of an extraction's CPU time goes to decoding, resizing, the model, selection
and writing, all in one thread, one after another, so that the shares are those of the wall time on
an idle core too; the median of the rounds.  `--runtime` as of `cqr extract`; `--whole` decodes
JPEGs at their full size, as was once done.

`compare`: pictures a second of whole extractions, each with one worker and one thread, over those
of eager PyTorch as it once was, on JPEGs at their full size and with channels first; all alternate,
the median of the rounds' ratios, since neighbours slow either down.  Networks are converted
beforehand: what that takes is printed.  And how far the features and boxes are from eager
PyTorch's, the JPEGs being decoded alike.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from extract import Loaded

from cqr.listing import find
from cqr.pipeline import assembly, compute, images
from cqr.pipeline.compute import one_thread
from cqr.pipeline.detectors import FINDERS, DetectorSpec, regional, runtimes
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import FeatureFile, open_features

K, BATCH = 36, 4
ON_A_CPU = (runtimes.TORCH, *runtimes.PACKAGES)
BEFORE = "torch as it was"


def loaded(name: str, runtime: str, whole: bool, first: bool = False) -> Loaded:
    """With its network converted, for which it has to see a picture; if asked, channels first."""
    detector = DetectorSpec(name, device="cpu", runtime=runtime, scaled=not whole).load()
    if first:
        encoder = getattr(detector.backend, "_encoder", detector.backend)
        encoder.network.to(memory_format=torch.contiguous_format)
    with one_thread():
        start = time.process_time()
        detector([np.zeros((224, 224, 3), np.uint8)], 1)
    print(f"{name}, {runtime}: the first picture took {time.process_time() - start:.1f} s")
    return Loaded(name, device="cpu", detector=detector, scaled=not whole)


def extracted(folder: Path, out: Path, spec: Loaded) -> None:
    job = Job(folder, out, K, spec, batch=BATCH, workers=1, runtime="torch")  # it is converted
    with one_thread():
        extract(job)


def print_shares(folder: Path, spec: Loaded, rounds: int) -> None:
    """A line a stage."""
    pictures = len(find(folder)[0])
    found: list[Counter[str]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch, _timed(spec.load()) as spent:
            start = time.process_time()
            extracted(folder, Path(scratch, "x.h5"), spec)
            whole = time.process_time() - start
        spent["the rest"] = whole - spent.total()
        spent["all"] = whole
        found.append(spent)
    print(f"{pictures} pictures, {spec.name}, K {K}, batch {BATCH}, CPU time of one thread")
    for stage in found[0]:
        seconds = statistics.median(spent[stage] for spent in found)
        share = statistics.median(spent[stage] / spent["all"] for spent in found)
        print(f"  {stage:10} {1000 * seconds / pictures:8.2f} ms a picture  {share:6.1%}")


class _AtOnce:
    """An executor that has no threads: what is submitted is done at once."""

    def __init__(self, threads: int) -> None:
        pass

    def __enter__(self) -> "_AtOnce":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def shutdown(self, **how: bool) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterable[Any]:
        return map(function, items)


@contextmanager
def _timed(detector: Any) -> Iterator[Counter[str]]:
    """The CPU seconds of each stage, filled while the block runs."""
    spent: Counter[str] = Counter()

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        spent[stage] += 0

        def run(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                spent[stage] += time.process_time() - start

        return run

    backend = detector.backend
    stages = {
        "decode": [(images, "size"), (images, "decoded")],
        "resize": [(backend, "resize")],
        "model": [(backend, "encode"), (backend, "find"), (backend, "pool")],
        "selection": [(regional, "select_each")],
        "write": [(compute, "_store"), (assembly.Task, "write"), (assembly, "join")],
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(compute, "ThreadPoolExecutor", _AtOnce))
        for stage, places in stages.items():
            for owner, name in places:
                stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield spent


def compare(folder: Path, name: str, rounds: int) -> None:
    """Ratios of pictures a second, and how far the numbers are apart."""
    variants = {BEFORE: loaded(name, "torch", True, first=True)}
    for runtime in ON_A_CPU:
        variants[runtime] = loaded(name, runtime, False)
    times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
    pictures = len(find(folder)[0])
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(rounds):
            for variant, spec in variants.items():
                start = time.perf_counter(), time.process_time()
                extracted(folder, Path(scratch, f"{variant}.{i}.h5"), spec)
                end = time.perf_counter(), time.process_time()
                times[variant].append((end[0] - start[0], end[1] - start[1]))
        first = {v: open_features(Path(scratch, f"{v}.0.h5")) for v in variants}
        print(f"{pictures} pictures, {name}, K {K}, batch {BATCH}, {rounds} rounds")
        today = times[BEFORE]
        for variant, taken in times.items():
            wall, cpu = (
                statistics.median(a[clock] / b[clock] for a, b in zip(today, taken, strict=True))
                for clock in (0, 1)
            )
            rate = pictures / statistics.median(t[1] for t in taken)
            print(f"  {variant:20} {rate:6.1f} a CPU second; ratio: CPU {cpu:.2f}, wall {wall:.2f}")
        for runtime in runtimes.PACKAGES:
            print(f"  {runtime}: {_apart(first['torch'], first[runtime])}")
        print(f"  {BEFORE}: {_apart(first[BEFORE], first['torch'])}")


def _apart(one: FeatureFile, other: FeatureFile) -> str:
    """How far the regions of the same pictures are apart, those of the same box."""
    off, same, regions, cosines = 0.0, 0, 0, []
    for path in one.paths:
        a, b = one.regions(path), other.regions(path)
        count = min(a.count, b.count)
        regions += max(a.count, b.count)
        equal = (np.abs(a.boxes[:count] - b.boxes[:count]) < 0.01).all(1)
        same += int(equal.sum())
        x, y = a.features[:count][equal], b.features[:count][equal]
        off = max(off, float(np.abs(x - y).max()))
        cosines += ((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).tolist()
    return (
        f"{same / regions:.4%} of {regions:,} regions have the same box; their features, stored in"
        f" float16, are {off:.1e} apart at most, cosine {np.mean(cosines):.6f} on average,"
        f" {min(cosines):.6f} at least"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("shares", "compare"))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", choices=FINDERS, default="grid")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", choices=ON_A_CPU, default="torch")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    if options.command == "shares":
        spec = loaded(options.detector, options.runtime, options.whole)
        print_shares(options.images, spec, options.rounds)
    else:
        compare(options.images, options.detector, options.rounds)


if __name__ == "__main__":
    main()
