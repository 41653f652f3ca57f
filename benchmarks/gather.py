"""Random rows of a feature file: our reader beside h5py and beside a numpy memmap.

    python benchmarks/gather.py [--images 4096] [--k 36] [--dim 1024] [--rows 256] [--rounds 20]

Writes a feature file of random numbers to a temporary folder, then, in every
round, reads the same random rows in four ways and compares the times:

  cqr      RegionReader.gather: features, boxes and counts, as the trainer does
  h5py     the features alone, row by row, from the feature file, as any HDF5 tool would
  shards   the same from the shards' own datasets, without the virtual one above them
  memmap   the features alone, from one plain file of the same bytes, by numpy
           fancy indexing

Every row is read once in each way beforehand, so the file is in the page cache
and its pages are mapped: the state of a training from its second epoch on.
Prints medians and ratios.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import h5py
import numpy as np

from cqr.pipeline import feature_file, shards
from cqr.trainer.features import RegionReader


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("images", 4096), ("k", 36), ("dim", 1024), ("rows", 256), ("rounds", 20)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        compare(Path(place), options)


def compare(place: Path, o: argparse.Namespace) -> None:
    file, plain = make(place, o.images, o.k, o.dim)
    reader = RegionReader(file)
    opened = [h5py.File(shard.path)["regions/features"] for shard in reader.file.shards]
    whole = h5py.File(file)["regions/features"]
    first = np.array([shard.first for shard in reader.file.shards])
    flat = np.memmap(plain, dtype=np.float16, mode="r", shape=(o.images, o.k, o.dim))
    rng = np.random.default_rng(0)
    for begin in range(0, o.images, o.rows):
        every = np.arange(begin, min(begin + o.rows, o.images))
        reader.gather(every)
        flat[every].sum()
    times: dict[str, list[float]] = {"cqr": [], "h5py": [], "shards": [], "memmap": []}
    for _ in range(o.rounds):
        rows = rng.integers(0, o.images, o.rows)
        shard_of = np.searchsorted(first, rows, side="right") - 1
        ways = {
            "cqr": lambda rows=rows: reader.gather(rows).features.numpy(),
            "h5py": lambda rows=rows: np.stack([whole[row] for row in rows]),
            "shards": lambda rows=rows, s=shard_of: np.stack(
                [opened[i][row - first[i]] for row, i in zip(rows, s, strict=True)]
            ),
            "memmap": lambda rows=rows: flat[rows],
        }
        read = {}
        for name, way in ways.items():
            began = time.perf_counter()
            read[name] = way()
            times[name].append(time.perf_counter() - began)
        assert all(np.array_equal(read["cqr"], other) for other in read.values())
    print(f"{o.rows} random rows of {o.k} x {o.dim} float16, median of {o.rounds} rounds")
    for name, all_times in times.items():
        ratios = [t / own for t, own in zip(all_times, times["cqr"], strict=True)]
        print(f"{name:8}{1000 * median(all_times):8.2f} ms   {median(ratios):5.2f} x cqr's time")


def make(place: Path, images: int, k: int, dim: int) -> tuple[Path, Path]:
    """A feature file and a plain file of the same features."""
    rng = np.random.default_rng(1)
    header = shards.Header("bench", "", k, dim, {"name": "random"}, "/", "", "")
    file, plain = place / "bench.h5", place / "plain.bin"
    files = []
    with plain.open("wb") as out:
        for begin in range(0, images, 1024):
            n = min(1024, images - begin)
            rows = shards.Rows.empty(k, dim, n)
            rows.paths[:] = [f"{begin + i}.jpg" for i in range(n)]
            rows.arrays["regions/features"][:] = rng.random((n, k, dim), dtype=np.float32)
            rows.arrays["regions/boxes"][..., 2:] = 1
            rows.arrays["regions/count"][:] = k
            rows.arrays["images/size"][:] = 1
            out.write(rows.arrays["regions/features"].tobytes())
            files.append(feature_file.shards_folder(file) / f"{len(files):05d}.h5")
            shards.write_shard(files[-1], header, rows)
    feature_file.join(file, header, files)
    return file, plain


if __name__ == "__main__":
    main()
