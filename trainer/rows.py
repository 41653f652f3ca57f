"""Where the rows of a feature file are read from: mapped shards, h5py, or a device's own memory.

Each gives tensors where it keeps them: `at(rows)` finds images, `read` gathers an array of them.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.machine import moved
from cqr.pipeline.feature_file import FeatureFile
from cqr.pipeline.shards import layout

Rows = NDArray[np.int64]

CHUNK = 2**28
"""Bytes that are on their way to a device at a time."""


class Source(Protocol):
    """The arrays of a feature file, by the row of an image."""

    def at(self, rows: Rows) -> Any:
        """Where the images at `rows` are, as `read` takes it."""
        ...

    def read(self, name: str, at: Any, k: int) -> Tensor:
        """The first k regions of each, n x k x D or n x k x 4; the whole image is n x 1 x D."""
        ...

    def there(self, array: NDArray[Any]) -> Tensor:
        """An array, where `read` gives its own."""
        ...


class Place(NamedTuple):
    """Of n images, the number of each one's shard, and its row in that."""

    shard: Rows
    local: Rows


class _Shards:
    """The shards of a file that lies on this machine."""

    def __init__(self, file: FeatureFile) -> None:
        self.first = np.array([shard.first for shard in file.shards])

    def at(self, rows: Rows) -> Place:
        shard = np.searchsorted(self.first, rows, side="right") - 1
        return Place(shard, rows - self.first[shard])

    def there(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array)


class Mapped(_Shards):
    """The shards as mapped bytes, and all rows of a batch as one gather out of them.

    numpy gathers from one array.  So the stretch of memory from the first mapped byte of any
    shard to the last is taken for one, though what lies between the shards is not ours: only
    bytes of rows are ever touched.
    """

    def __init__(self, file: FeatureFile) -> None:
        super().__init__(file)
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

    def read(self, name: str, at: Place, k: int) -> Tensor:
        shape, dtype = self.layout[name]
        whole, width = shape if len(shape) == 2 else (1, *shape)
        region = width * dtype.itemsize
        row = np.dtype((np.void, k * region))
        every = np.ndarray((self.span - row.itemsize + 1,), row, self.memory, strides=(1,))
        begins = self.begins[name][at.shard] + at.local * (whole * region)
        return self.there(every[begins].view(dtype).reshape(len(at.local), k, width))


class Hdf5(_Shards):
    """The shards through h5py, row by row: much slower, and an oracle for `Mapped`."""

    def __init__(self, file: FeatureFile) -> None:
        super().__init__(file)
        self.files = [h5py.File(shard.path) for shard in file.shards]

    def counts(self) -> NDArray[np.int32]:
        return np.concatenate([file["regions/count"][:] for file in self.files])

    def read(self, name: str, at: Place, k: int) -> Tensor:
        places = zip(*at, strict=True)
        rows = np.stack([self.files[number][name][row] for number, row in places])
        return self.there(rows[:, :k] if rows.ndim == 3 else rows[:, None])


class Resident:
    """Arrays of all images in the memory of a device, so that a batch is gathered there."""

    def __init__(self, arrays: dict[str, Tensor], device: torch.device) -> None:
        self.arrays = arrays
        self.device = device

    @classmethod
    def of(
        cls, source: Source, names: Sequence[str], images: int, k: int, device: torch.device
    ) -> Self:
        """The first k regions of each of the images 0, 1, ..., copied once."""
        return cls({name: _copied(source, name, images, k, device) for name in names}, device)

    def at(self, rows: Rows) -> Tensor:
        return self.there(rows)

    def read(self, name: str, at: Tensor, k: int) -> Tensor:
        return self.arrays[name][:, :k].index_select(0, at)

    def there(self, array: NDArray[Any]) -> Tensor:
        return moved(torch.from_numpy(array), self.device)


def _copied(source: Source, name: str, images: int, k: int, device: torch.device) -> Tensor:
    """images x k x width."""
    k = 1 if name.startswith("whole/") else k
    one = source.read(name, source.at(np.arange(min(1, images))), k)
    out = torch.empty((images, *one.shape[1:]), dtype=one.dtype, device=device)
    step = max(1, CHUNK // max(1, one.nbytes))
    for first in range(0, images, step):
        rows = np.arange(first, min(images, first + step))
        out[first : first + step] = source.read(name, source.at(rows), k).to(device)
    return out
