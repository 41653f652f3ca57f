"""One shard in, one file out: read ahead, detect in full batches, write."""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from cqr.errors import UserError
from cqr.listing import Failure
from cqr.pipeline import images
from cqr.pipeline.assembly import Task, Times
from cqr.pipeline.detectors import Detector, Picture
from cqr.pipeline.regions import Regions
from cqr.pipeline.shards import Rows

BATCH_BYTES = 128 << 20
"""Decoded pictures of one batch take at most this, unless one alone takes more."""

HOPELESS = 16
"""So many pictures in a row that the detector fails on are a defect, not bad pictures."""


@dataclass(frozen=True)
class Pace:
    """What changes speed and memory, and no number.

    Attributes:
        batch: pictures in a batch.
        readers: threads that decode.
        max_pixels: a larger picture is refused.
        beside: a shard is written while the next is computed, for the sake of a GPU that would
            wait; a kill then costs both.
    """

    batch: int
    readers: int
    max_pixels: int = images.MAX_PIXELS
    beside: bool = False


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: sums come out the same for any number of workers, and cores are
    shared out by workers, which do not wait for one another."""
    torch = sys.modules.get("torch")  # absent: the detector does not need it
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compute_each(
    tasks: Iterable[Task],
    detector: Detector,
    pace: Pace,
    report: Callable[[int], None],
    done: Callable[[Times], None],
) -> None:
    """Compute shards one after another, and write each.

    Args:
        report: called with numbers of finished pictures.
        done: called after each shard with what it took.  Where shards are written `beside`, the
            last may not be there until this returns.

    Raises:
        UserError: memory or the device gave out, the detector fails on every
            picture, or a shard cannot be written.
    """
    with ThreadPoolExecutor(1) as writer:
        before: Future[float] | None = None
        for task in tasks:
            times, write = _computed(task, detector, pace, report)
            if before is not None:
                times.write += before.result()
            if pace.beside:
                before = writer.submit(write)
            else:
                times.write += write()
            done(times)
        if before is not None:
            before.result()


def _computed(
    task: Task, detector: Detector, pace: Pace, report: Callable[[int], None]
) -> tuple[Times, Callable[[], float]]:
    """What a shard took, and what writes it and gives the seconds of that."""
    times = Times()
    kept, todo = task.left()
    report(len(task.paths) - len(todo))
    with ThreadPoolExecutor(pace.readers) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata; of size, we have our own limit
        try:
            rows, failures = _rows(task, todo, detector, pace, pool, times, report)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def write() -> float:
        took = Times()
        with took.spent("write"):
            task.write(kept, rows, failures)
        return took.write

    return times, write


def _rows(
    task: Task,
    paths: Sequence[str],
    detector: Detector,
    pace: Pace,
    pool: ThreadPoolExecutor,
    times: Times,
    report: Callable[[int], None],
) -> tuple[Rows, list[Failure]]:
    """The rows of the pictures that can be used, in the order of `paths`, and the others."""
    root = Path(task.header.image_root)
    k = task.header.k
    rows = Rows.empty(k, task.header.dim, len(paths))
    reasons: dict[int, str] = {}
    misses = 0  # pictures in a row on which the detector failed
    with times.spent("read"):
        sizes = list(pool.map(images.size, [root / path for path in paths]))
        batches = full_batches(sizes, detector.network_size, pace.batch)

    files = [root / path for path in paths]
    read = functools.partial(_read, detector=detector, max_pixels=pace.max_pixels)
    for batch, futures in _read_ahead(pool, files, batches, read):
        pictures: dict[int, Read] = {}
        with times.spent("read"):
            for i, future in zip(batch, futures, strict=True):
                try:
                    pictures[i] = future.result()
                    sizes[i] = pictures[i].decoded.size
                    times.guessed += pictures[i].decoded.guessed
                except images.TooLarge as error:
                    reasons[i] = f"{error}; --max-pixels N allows it, then --retry-failed"
                except images.Refused as error:
                    reasons[i] = str(error)
        with times.spent("detect"):
            found = _detect(detector, list(pictures.values()), k)
        for (i, picture), regions in zip(pictures.items(), found, strict=True):
            if isinstance(regions, Exception):
                _raise_if_fatal(regions, paths[i])
                misses += 1
                reasons[i] = f"the detector failed on it ({images.sentence(regions)})"
                if misses == HOPELESS:
                    raise UserError(
                        f"the detector failed on {HOPELESS} pictures in a row, the last one"
                        f" {paths[i]} ({images.sentence(regions)}); try another --detector"
                    ) from regions
                continue
            misses = 0
            try:
                _store(rows, i, paths[i], picture.decoded.pixels, regions, sizes[i])
            except OverflowError as error:
                reasons[i] = str(error)
        report(len(batch))
    good = [i for i in range(len(paths)) if i not in reasons]
    return rows.take(good), [Failure(paths[i], reasons[i]) for i in sorted(reasons)]


def full_batches(
    sizes: Sequence[tuple[int, int]],
    network_size: Callable[[int, int], tuple[int, int]],
    most: int,
) -> list[list[int]]:
    """Indices of pictures in batches of one network size, at most `most` and BATCH_BYTES each."""

    def key(i: int) -> tuple[int, int]:
        width, height = sizes[i]
        try:
            return network_size(width, height) if width and height else (0, 0)
        except ValueError:
            return 0, 0  # decoding it, or the detector, will say what is wrong

    batches = []
    order = sorted(range(len(sizes)), key=lambda i: (key(i), i))
    for _, same in groupby(order, key):
        batch: list[int] = []
        room = BATCH_BYTES
        for i in same:
            room -= 3 * sizes[i][0] * sizes[i][1]
            if batch and (len(batch) == most or room < 0):
                batches.append(batch)
                batch = []
                room = BATCH_BYTES - 3 * sizes[i][0] * sizes[i][1]
            batch.append(i)
        batches.append(batch)
    return batches


class Read(NamedTuple):
    """A picture as a thread leaves it.

    Attributes:
        prepared: what the detector's `prepare` made of it; None where there is no such thing, or
            it failed, which the detector then says itself.
    """

    decoded: images.Decoded
    prepared: Any


def _read(file: Path, detector: Detector, max_pixels: int) -> Read:
    decoded = images.decoded(file, max_pixels=max_pixels, fraction=detector.fraction)
    prepared = None
    if (prepare := detector.prepare) is not None:
        with contextlib.suppress(ValueError, RuntimeError):
            prepared = prepare(decoded.pixels)
    return Read(decoded, prepared)


def _read_ahead(
    pool: ThreadPoolExecutor,
    files: Sequence[Path],
    batches: Sequence[list[int]],
    read: Callable[[Path], Read],
) -> Iterator[tuple[list[int], list[Future[Read]]]]:
    """Each batch with its pictures, while those of the next one are being read."""

    def start(batch: list[int]) -> list[Future[Read]]:
        return [pool.submit(read, files[i]) for i in batch]

    ahead = start(batches[0]) if batches else []
    for i, batch in enumerate(batches):
        futures, ahead = ahead, start(batches[i + 1]) if i + 1 < len(batches) else []
        yield batch, futures


def _detect(detector: Detector, pictures: list[Read], k: int) -> list[Regions | Exception]:
    """Regions for each picture; for one that the detector fails on, what it raised."""
    if not pictures:
        return []
    try:
        pixels = [read.decoded.pixels for read in pictures]
        prepared = [read.prepared for read in pictures]
        if any(one is None for one in prepared):
            return list(detector(pixels, k))
        return list(detector(pixels, k, prepared))
    except UserError:
        raise
    except Exception as error:
        if len(pictures) == 1 or _is_fatal(error):
            return [error] * len(pictures)
    return [found for picture in pictures for found in _detect(detector, [picture], k)]


def _is_fatal(error: Exception) -> bool:
    """Whether the next picture would fail as well: memory, or the accelerator's state."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("OutOfMemoryError", "AcceleratorError")
        or "CUDA" in str(error)
        or "can't allocate memory" in str(error)
    )


def _raise_if_fatal(error: Exception, path: str) -> None:
    if _is_fatal(error):
        raise UserError(
            f"memory or the device gave out at {path} ({images.sentence(error)}); run the same"
            f" command again with a smaller --batch, fewer --workers or --device cpu:"
            f" finished shards are kept"
        ) from error


def _store(
    rows: Rows, i: int, path: str, picture: Picture, regions: Regions, size: tuple[int, int]
) -> None:
    """Fill row i; `size` is that of the picture in its file, of which `picture` may be a fraction.

    Raises:
        OverflowError: a value does not fit float16.
    """
    height, width = picture.shape[:2]
    if (regions.width, regions.height) != (width, height):
        raise RuntimeError(f"the detector gave the regions of another picture for {path}")
    rows.put(i, path, regions.resized(*size))
