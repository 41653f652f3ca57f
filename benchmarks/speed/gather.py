"""Random rows of a feature file: our reader beside h5py and beside a numpy memmap.

    python benchmarks/speed/gather.py [--images 4096] [--k 36] [--dim 1024] [--rows 256]
        [--rounds 20]

Writes a feature file of random numbers to a temporary folder, then, in every
round, reads the same random rows (features, boxes, counts: what a batch needs)
in five ways and compares the times:

  cqr      RegionReader.gather, as the trainer does: tensors, boxes in parts of the picture, a mask
  rows     the bytes of that alone, as the ways below read them
  h5py     row by row from the feature file, as any HDF5 tool would
  shards   row by row from the shards' own datasets, without the virtual one above
  memmap   from one plain file an array, of the same bytes, by numpy fancy indexing

Every row is read once in each way beforehand, so the file is in the page cache
and its pages are mapped: the state of a training from its second epoch on.
Prints medians, bests, which a busy machine spoils less, and ratios.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cqr.pipeline import feature_file, shards
from cqr.trainer.features import RegionReader


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("images", 4096), ("k", 36), ("dim", 1024), ("rows", 256), ("rounds", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        compare(Path(place), options)


NAMES = ("features", "boxes", "count")


def compare(place: Path, o: argparse.Namespace) -> None:
    file = make(place, o.images, o.k, o.dim)
    reader = RegionReader(file)
    whole = opened(file)
    parts = [opened(shard.path) for shard in reader.file.shards]
    first = np.array([shard.first for shard in reader.file.shards])
    flat = {}
    for name in NAMES:
        whole[name][:].tofile(place / name)
        flat[name] = np.memmap(place / name, whole[name].dtype, "r", shape=whole[name].shape)

    def by_hdf5(rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        return [np.stack([whole[name][row] for row in rows]) for name in NAMES]

    def by_shards(rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        shard = np.searchsorted(first, rows, side="right") - 1
        places = list(zip(shard, rows - first[shard], strict=True))
        return [np.stack([parts[s][name][row] for s, row in places]) for name in NAMES]

    def by_rows(rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        at, read = reader._rows.at(rows), reader._rows.read
        arrays = [read(f"regions/{name}", at, o.k) for name in ("features", "boxes")]
        return [*arrays, reader._count[rows]]

    ways: dict[str, Callable[[NDArray[np.int64]], Any]] = {
        "cqr": reader.gather,
        "rows": by_rows,
        "h5py": by_hdf5,
        "shards": by_shards,
        "memmap": lambda rows: [flat[name][rows] for name in NAMES],
    }
    for begin in range(0, o.images, o.rows):
        rows = np.arange(begin, min(begin + o.rows, o.images))
        expected = reader.gather(rows)
        for name in ("rows", "h5py", "shards", "memmap"):
            features, boxes, _ = ways[name](rows)
            assert np.array_equal(expected.features, features)
            assert np.array_equal(expected.boxes, boxes)  # the pictures are 1 x 1
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(o.rounds):
        rows = rng.integers(0, o.images, o.rows)
        for name, way in ways.items():
            began = time.perf_counter()
            way(rows)
            times[name].append(time.perf_counter() - began)
    print(f"{o.rows} random rows of {o.k} x {o.dim} float16, median of {o.rounds} rounds")
    for name, taken in times.items():
        ratios = [their / t for t, their in zip(taken, times["memmap"], strict=True)]
        best = min(times["memmap"]) / min(taken)
        print(
            f"{name:8}{1000 * median(taken):8.2f} ms, best {1000 * min(taken):8.2f}; rows a second"
            f" over memmap's: {median(ratios):5.2f}, of the best {best:5.2f}"
        )


def opened(path: Path) -> dict[str, h5py.Dataset]:
    regions = h5py.File(path)["regions"]
    return {name: regions[name] for name in NAMES}


def make(place: Path, images: int, k: int, dim: int) -> Path:
    """A feature file of random numbers."""
    rng = np.random.default_rng(1)
    header = shards.Header("bench", "", k, dim, {"name": "random"}, "/", "", "")
    file = place / "bench.h5"
    files = []
    for begin in range(0, images, 1024):
        n = min(1024, images - begin)
        rows = shards.Rows.empty(k, dim, n)
        rows.paths[:] = [f"{begin + i}.jpg" for i in range(n)]
        rows.arrays["regions/features"][:] = rng.random((n, k, dim), dtype=np.float32)
        rows.arrays["regions/boxes"][..., 2:] = 1
        rows.arrays["regions/count"][:] = k
        rows.arrays["images/size"][:] = 1
        files.append(feature_file.shards_folder(file) / f"{len(files):05d}.h5")
        shards.write_shard(files[-1], header, rows)
    feature_file.join(file, header, files)
    return file


if __name__ == "__main__":
    main()
