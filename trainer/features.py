"""Read regions by image path, fast, from a feature file.

The shards hold contiguous, uncompressed arrays, so a row is gathered by one
copy out of the page cache: no HDF5 call, and no memory that grows with the
number of images.
"""

import copy
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.errors import UserError
from cqr.pipeline.feature_file import FeatureFile, open_features
from cqr.pipeline.shards import layout
from cqr.remote import is_remote, located
from cqr.trainer.choices import Input

Rows = NDArray[np.int64]


@dataclass
class RegionBatch:
    """The regions of B images.

    Attributes:
        features: B x K x D float16 or float32.
        boxes: B x K x 4 float32, (x1/W, y1/H, x2/W, y2/H) in [0, 1].
        mask: B x K bool, True where the region is real.
        whole: B x D, the whole image's own feature, where the regions are not that and a model
            asks for both; else None.
        first, which: where an image comes more than once, U int64, where each image comes first,
            and B int64, which of those U each is; else None.
    """

    features: Tensor
    boxes: Tensor
    mask: Tensor
    whole: Tensor | None = None
    first: Tensor | None = None
    which: Tensor | None = None

    @property
    def once(self) -> Self:
        """The U images, each once."""
        first = self.first
        return self if first is None else self._each(lambda part: part.index_select(0, first))

    @property
    def apart(self) -> Self:
        """The same, as if no image came more than once."""
        return self._each(lambda part: part)

    def again(self, states: Tensor) -> Tensor:
        """U x ... of `once` to B x ..."""
        return states if self.which is None else states.index_select(0, self.which)

    @property
    def own(self) -> Tensor:
        """B x D: the feature of the whole image."""
        if self.whole is not None:
            return self.whole
        assert self.features.shape[1] == 1, "regions without the whole image"
        return self.features[:, 0]

    def to(self, device: torch.device | str) -> Self:
        def there(part: Tensor) -> Tensor:
            return part.to(device, non_blocking=True)

        moved = self._each(there)
        if self.first is not None and self.which is not None:
            moved.first, moved.which = there(self.first), there(self.which)
        return moved

    def expand(self, size: int) -> Self:
        """A batch of one, as often as `size` says; nothing is copied."""
        out = self._each(lambda part: part.expand(size, *part.shape[1:]))
        device = self.mask.device
        out.first, out.which = (torch.zeros(n, dtype=torch.int64, device=device) for n in (1, size))
        return out

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        features, boxes, mask = map(change, (self.features, self.boxes, self.mask))
        whole = None if self.whole is None else change(self.whole)
        return type(self)(features, boxes, mask, whole)

    def __len__(self) -> int:
        return len(self.features)


class RegionReader:
    """Rows of a feature file, by image path.

    Args:
        path: the feature file.
        mapped: False reads each row through h5py: much slower, and an oracle for
            the memory map.

    Raises:
        UserError: the file is not whole (see `open_features`), or not on this machine.
    """

    def __init__(self, path: Path, mapped: bool = True) -> None:
        path = located(path)
        if is_remote(path):
            folder = path.with_name(f"{path.stem}.shards")
            raise UserError(
                f"{path} cannot be mapped into memory: copy it and {folder} to one folder of this"
                f" machine, and name that copy"
            )
        self.file: FeatureFile = open_features(path)
        self.k = self.file.k
        self.kind: Input = "regions"
        self.whole = False
        self.dim = self.file.dim
        self.paths = self.file.paths
        self._row = {name: row for row, name in enumerate(self.paths)}
        self._first = np.array([shard.first for shard in self.file.shards])
        self._sizes = np.tile(np.asarray(self.file.sizes, dtype=np.float32), 2)  # W, H, W, H
        self._rows: _Mapped | _Hdf5 = (_Mapped if mapped else _Hdf5)(self.file)
        self._count = self._rows.counts()

    def seen_as(self, kind: Input, k: int | None = None, whole: bool = False) -> Self:
        """The same images as a model sees them, which is nowhere else decided.

        Args:
            kind: "whole" gives each as one region, the box around the whole image.
            k: the first k regions of each image only; None for all that the file holds.
            whole: give the whole image beside the regions.

        Raises:
            UserError: there is no such kind, or k is larger than what the file holds.
        """
        if kind not in get_args(Input):
            raise UserError(f"--input {kind} is not one of {', '.join(get_args(Input))}")
        if k is not None and not 1 <= k <= self.file.k:
            raise UserError(
                f"--k {k} is not between 1 and the {self.file.k} regions that "
                f"{self.file.path} holds"
            )
        reader = copy.copy(self)
        reader.kind = kind
        reader.k = self.file.k if k is None else k
        reader.whole = whole and kind == "regions"
        return reader

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, paths: list[str]) -> Rows:
        """The row of each image; -1 where the file does not have it."""
        return np.array([self._row.get(path, -1) for path in paths], dtype=np.int64)

    def gather(self, rows: Rows) -> RegionBatch:
        """The regions of the images at `rows`, in that order.

        K is cut to the largest count among them: the rows beyond are zero in
        every one of these images.

        Raises:
            IndexError: the file has no such row.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        shard = np.searchsorted(self._first, rows, side="right") - 1
        local = rows - self._first[shard]
        if self.kind == "whole":
            features = self._rows.read("whole/features", shard, local, 1)
            boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(rows), 1, 1))
            mask = np.ones((len(rows), 1), bool)
            return RegionBatch(*map(torch.from_numpy, (features, boxes, mask)))
        count = self._count[rows].clip(max=self.k)
        k = int(count.max())
        features = self._rows.read("regions/features", shard, local, k)
        boxes = self._rows.read("regions/boxes", shard, local, k)
        boxes /= self._sizes[rows][:, None]
        mask = np.arange(k) < count[:, None]
        batch = RegionBatch(*map(torch.from_numpy, (features, boxes, mask)))
        if self.whole:
            batch.whole = torch.from_numpy(self._rows.read("whole/features", shard, local, 1)[:, 0])
        _, first, which = np.unique(rows, return_index=True, return_inverse=True)
        if len(first) < len(rows):
            batch.first, batch.which = torch.from_numpy(first), torch.from_numpy(which)
        return batch


class _Mapped:
    """The shards as mapped bytes, and all rows of a batch as one gather out of them.

    numpy gathers from one array.  So the stretch of memory from the first mapped byte of any
    shard to the last is taken for one, though what lies between the shards is not ours: only
    bytes of rows are ever touched.
    """

    def __init__(self, file: FeatureFile) -> None:
        self.shards = file.shards
        self.layout = layout(file.k, file.dim)
        self.mapped = [np.memmap(s.path, np.uint8, "r") for s in file.shards]  # holds them
        places = np.array([one.ctypes.data for one in self.mapped])
        first = int(places.min())
        self.span = int(max(places + [len(one) for one in self.mapped])) - first
        self.memory = memoryview((ctypes.c_ubyte * self.span).from_address(first)).cast("B")
        self.begins = {
            name: places - first + [s.offsets[name] for s in self.shards] for name in self.layout
        }

    def counts(self) -> NDArray[np.int32]:
        name = "regions/count"
        return np.concatenate(
            [
                np.frombuffer(memory.data, self.layout[name][1], shard.rows, shard.offsets[name])
                for shard, memory in zip(self.shards, self.mapped, strict=True)
            ]
        )

    def read(self, name: str, shard: Rows, local: Rows, k: int) -> NDArray[Any]:
        """The first k regions of each row, n x k x D or n x k x 4; the whole image is n x 1 x D."""
        shape, dtype = self.layout[name]
        whole, width = shape if len(shape) == 2 else (1, *shape)
        region = width * dtype.itemsize
        row = np.dtype((np.void, k * region))
        every = np.ndarray((self.span - row.itemsize + 1,), row, self.memory, strides=(1,))
        begins = self.begins[name][shard] + local * (whole * region)
        return every[begins].view(dtype).reshape(len(local), k, width)


class _Hdf5:
    """The shards through h5py, row by row."""

    def __init__(self, file: FeatureFile) -> None:
        self.files = [h5py.File(shard.path) for shard in file.shards]

    def counts(self) -> NDArray[np.int32]:
        return np.concatenate([file["regions/count"][:] for file in self.files])

    def read(self, name: str, shard: Rows, local: Rows, k: int) -> NDArray[Any]:
        places = zip(shard, local, strict=True)
        rows = np.stack([self.files[number][name][row] for number, row in places])
        return rows[:, :k] if rows.ndim == 3 else rows[:, None]
