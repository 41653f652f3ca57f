"""One shard in, one file out: read ahead, detect in full batches, write."""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

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
    """

    batch: int
    readers: int
    max_pixels: int = images.MAX_PIXELS


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


def compute(task: Task, detector: Detector, pace: Pace, report: Callable[[int], None]) -> Times:
    """Compute a shard and write it; `report` is called with numbers of finished pictures.

    Raises:
        UserError: memory or the device gave out, the detector fails on every
            picture, or the shard cannot be written.
    """
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
    with times.spent("write"):
        task.write(kept, rows, failures)
    return times


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
    decode = functools.partial(
        images.decoded, max_pixels=pace.max_pixels, fraction=detector.fraction
    )
    for batch, futures in _read_ahead(pool, files, batches, decode):
        pictures: dict[int, Picture] = {}
        with times.spent("read"):
            for i, future in zip(batch, futures, strict=True):
                try:
                    pictures[i], guessed, sizes[i] = future.result()
                    times.guessed += guessed
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
                _store(rows, i, paths[i], picture, regions, sizes[i])
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


def _read_ahead(
    pool: ThreadPoolExecutor,
    files: Sequence[Path],
    batches: Sequence[list[int]],
    decode: Callable[[Path], images.Decoded],
) -> Iterator[tuple[list[int], list[Future[images.Decoded]]]]:
    """Each batch with its pictures, while those of the next one are being decoded."""

    def start(batch: list[int]) -> list[Future[images.Decoded]]:
        return [pool.submit(decode, files[i]) for i in batch]

    ahead = start(batches[0]) if batches else []
    for i, batch in enumerate(batches):
        futures, ahead = ahead, start(batches[i + 1]) if i + 1 < len(batches) else []
        yield batch, futures


def _detect(detector: Detector, pictures: list[Picture], k: int) -> list[Regions | Exception]:
    """Regions for each picture; for one that the detector fails on, what it raised."""
    if not pictures:
        return []
    try:
        return list(detector(pictures, k))
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
