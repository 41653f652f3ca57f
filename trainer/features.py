"""Read regions by image path, fast, from a feature file.

The shards hold contiguous, uncompressed arrays, so a row is gathered by one
copy out of the page cache: no HDF5 call, and no memory that grows with the
number of images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.errors import UserError
from cqr.pipeline.feature_file import FeatureFile, open_features
from cqr.pipeline.shards import Shard, layout

Rows = NDArray[np.int64]
Layout = dict[str, tuple[tuple[int, ...], np.dtype]]


@dataclass(frozen=True)
class RegionBatch:
    """The regions of B images.

    Attributes:
        features: B x K x D float16 or float32.
        boxes: B x K x 4 float32, (x1/W, y1/H, x2/W, y2/H) in [0, 1].
        mask: B x K bool, True where the region is real.
    """

    features: Tensor
    boxes: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Self:
        features, boxes, mask = (
            t.to(device, non_blocking=True) for t in (self.features, self.boxes, self.mask)
        )
        return type(self)(features, boxes, mask)

    def __len__(self) -> int:
        return len(self.features)


class RegionReader:
    """Rows of a feature file, by image path.

    Args:
        path: the feature file.
        k: read the first k regions of each image only; None for all.
        mapped: False reads each row through h5py: much slower, and an oracle for
            the memory map.

    Raises:
        UserError: the file is not whole (see `open_features`), or k is larger
            than what it holds.
    """

    def __init__(self, path: Path, k: int | None = None, mapped: bool = True) -> None:
        self.file: FeatureFile = open_features(path)
        self.k = self.file.k if k is None else k
        if not 1 <= self.k <= self.file.k:
            raise UserError(
                f"--k {k} is not between 1 and the {self.file.k} regions that {path} holds"
            )
        self.dim = self.file.dim
        self.paths = self.file.paths
        self._row = {name: row for row, name in enumerate(self.paths)}
        shapes = layout(self.file.k, self.file.dim)
        self._shards = [(_map if mapped else _read)(s, shapes) for s in self.file.shards]
        self._first = np.array([shard.first for shard in self.file.shards])
        self._sizes = np.asarray(self.file.sizes, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, paths: list[str]) -> Rows:
        """The row of each image; -1 where the file does not have it."""
        return np.array([self._row.get(path, -1) for path in paths], dtype=np.int64)

    def gather(self, rows: Rows) -> RegionBatch:
        """The regions of the images at `rows`, in that order.

        K is cut to the largest count among them: the rows beyond are zero in
        every one of these images.
        """
        shard_of = np.searchsorted(self._first, rows, side="right") - 1
        places = list(zip(shard_of.tolist(), (rows - self._first[shard_of]).tolist(), strict=True))
        count = np.array([self._shards[s].count[i] for s, i in places]).clip(max=self.k)
        k = int(count.max())
        features = np.empty((len(rows), k, self.dim), dtype=np.float16)
        boxes = np.empty((len(rows), k, 4), dtype=np.float32)
        for at, (shard, row) in enumerate(places):
            features[at] = self._shards[shard].features[row, :k]
            boxes[at] = self._shards[shard].boxes[row, :k]
        boxes /= np.tile(self._sizes[rows], 2)[:, None]
        mask = np.arange(k) < count[:, None]
        return RegionBatch(
            torch.from_numpy(features), torch.from_numpy(boxes), torch.from_numpy(mask)
        )


@dataclass(frozen=True)
class _Arrays:
    """The regions of one shard: n x K x D float16, n x K x 4 float32, n int32."""

    features: NDArray[np.float16] | h5py.Dataset
    boxes: NDArray[np.float32] | h5py.Dataset
    count: NDArray[np.int32]


def _map(shard: Shard, shapes: Layout) -> _Arrays:
    memory = np.memmap(shard.path, dtype=np.uint8, mode="r")

    def array(name: str) -> NDArray[Any]:
        shape, dtype = shapes[f"regions/{name}"]
        return np.ndarray((shard.rows, *shape), dtype, memory, shard.offsets[f"regions/{name}"])

    return _Arrays(array("features"), array("boxes"), array("count"))


def _read(shard: Shard, shapes: Layout) -> _Arrays:
    regions = h5py.File(shard.path)["regions"]
    return _Arrays(regions["features"], regions["boxes"], regions["count"][:])
