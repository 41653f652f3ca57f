"""Read regions by image path, fast, from a feature file.

The shards hold contiguous, uncompressed arrays, so a row is gathered by one
copy out of the page cache: no HDF5 call, and no memory that grows with the
number of images.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.errors import UserError
from cqr.machine import moved
from cqr.pipeline.feature_file import FeatureFile, open_features
from cqr.pipeline.shards import layout
from cqr.remote import is_remote, located
from cqr.trainer.choices import Input
from cqr.trainer.rows import Hdf5, Mapped, Resident, Rows, Source

FEATURES, BOXES, WHOLE = "regions/features", "regions/boxes", "whole/features"


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
        there = self._each(lambda part: moved(part, device))
        if self.first is not None and self.which is not None:
            there.first, there.which = moved(self.first, device), moved(self.which, device)
        return there

    def filled(self, k: int) -> Self:
        """The same with k places for regions, at least K, each image by itself: a shape that does
        not depend on which images they are."""
        more = k - self.mask.shape[1]

        def fill(part: Tensor) -> Tensor:
            return F.pad(part, (0, 0) * (part.dim() - 2) + (0, more))

        return type(self)(fill(self.features), fill(self.boxes), fill(self.mask), self.whole)

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
        mapped: False reads each row through h5py.

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
        self._sizes = np.tile(np.asarray(self.file.sizes, dtype=np.float32), 2)  # W, H, W, H
        source = (Mapped if mapped else Hdf5)(self.file)
        self._rows: Source = source
        self._count = source.counts()

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
        """The regions of the images at `rows`, in that order; see `on` for where they are.

        K is cut to the largest count among them: the rows beyond are zero in
        every one of these images.

        Raises:
            IndexError: the file has no such row.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        at, there = self._rows.at(rows), self._rows.there
        if self.kind == "whole":
            features = self._rows.read(WHOLE, at, 1)
            boxes = there(np.tile(np.array([0, 0, 1, 1], np.float32), (len(rows), 1, 1)))
            return RegionBatch(features, boxes, there(np.ones((len(rows), 1), bool)))
        count = self._count[rows].clip(max=self.k)
        k = int(count.max())
        features = self._rows.read(FEATURES, at, k)
        boxes = self._rows.read(BOXES, at, k).div_(there(self._sizes[rows])[:, None])
        batch = RegionBatch(features, boxes, there(np.arange(k) < count[:, None]))
        if self.whole:
            batch.whole = self._rows.read(WHOLE, at, 1)[:, 0]
        _, first, which = np.unique(rows, return_index=True, return_inverse=True)
        if len(first) < len(rows):
            batch.first, batch.which = there(first), there(which)
        return batch

    def on(self, device: torch.device) -> Self:
        """The same, but all images lie in the memory of a device, where `gather` leaves them."""
        reader = copy.copy(self)
        reader._rows = Resident.of(self._rows, self._names, len(self), self.k, device)
        return reader

    @property
    def bytes(self) -> int:
        """What `on` takes of a device's memory."""
        row = {name: math.prod(s) * d.itemsize for name, (s, d) in layout(self.k, self.dim).items()}
        return len(self) * sum(row[name] for name in self._names)

    @property
    def _names(self) -> list[str]:
        """The arrays that `gather` reads."""
        return [WHOLE] if self.kind == "whole" else [FEATURES, BOXES] + [WHOLE] * self.whole
