"""Which boxes a backbone describes: the cells of a grid, or what a detector finds."""

from typing import Any

import torch
from torch import Tensor

from cqr.errors import UserError
from cqr.pipeline.detectors import Picture
from cqr.pipeline.detectors.grid import Grid
from cqr.pipeline.detectors.regional import Backend, Encoder, RegionDetector

KINDS = ("cells", "boxes", "crops")
"""cells: of a grid.  boxes: a detector's, pooled over the backbone's map.  crops: each box is cut
out and embedded by itself: the dearest way, against which the others are measured."""

BATCH = 32
"""Crops that are embedded together."""


def detector(encoder: Encoder, kind: str, finder: Backend | None) -> RegionDetector:
    """A detector of regions that an encoder describes.

    Args:
        encoder: a backbone.
        kind: one of KINDS.
        finder: whose boxes; None, for `cells` and `crops`: the cells of a grid.

    Raises:
        UserError: there is no such kind, or no boxes for it.
    """
    if kind not in KINDS:
        raise UserError(f"there are no regions {kind}; choose --regions from {', '.join(KINDS)}")
    if kind == "boxes" and finder is None:
        raise UserError("--regions boxes needs a detector that finds boxes: name it with --finder")
    if kind == "cells" and finder is not None:
        raise UserError("--regions cells needs no --finder; leave it out, or say --regions boxes")
    if kind == "cells":
        return RegionDetector(_Cells(encoder))
    cells = _Cells(encoder)
    describer = (Crops if kind == "crops" else Pooled)(encoder, finder)
    return RegionDetector(finder or cells, describer)


class _Cells(Grid):
    """A grid over a backbone; its identity is the backbone's."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.identity = {**encoder.identity, "regions": "cells", "finder": None}


class Pooled:
    """A `regional.Describer`: another network's boxes, pooled over an encoder's map."""

    kind = "boxes"

    def __init__(self, encoder: Encoder, finder: Backend | None) -> None:
        self.encoder = encoder
        self.dim = encoder.dim
        self.identity: dict[str, Any] = {
            **encoder.identity,
            "regions": self.kind,
            "finder": finder.identity if finder else None,
        }

    def __call__(
        self, pictures: list[Picture], boxes: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        features: dict[int, Tensor] = {}
        wholes: dict[int, Tensor] = {}
        for size, members in _by_size(self.encoder, pictures).items():
            maps = _encoded(self.encoder, [pictures[i] for i in members], size)
            there = [_into(boxes[i], pictures[i], size) for i in members]
            pooled = self.encoder.pool(maps, [b.to(self.encoder.device) for b in there])
            each = pooled.float().cpu().split([len(b) for b in there])
            features |= dict(zip(members, each, strict=True))
            wholes |= dict(zip(members, _whole(self.encoder, maps), strict=True))
        order = range(len(pictures))
        return [features[i] for i in order], [wholes[i] for i in order]


class Crops(Pooled):
    """A `regional.Describer`: each box cut out of its picture, and embedded as one."""

    kind = "crops"

    def __call__(
        self, pictures: list[Picture], boxes: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        cut = [
            [_cut(picture, box) for box in each]
            for picture, each in zip(pictures, boxes, strict=True)
        ]
        parts = self._embedded([part for each in cut for part in each])
        return list(parts.split([len(each) for each in cut])), list(self._embedded(pictures))

    def _embedded(self, pictures: list[Picture]) -> Tensor:
        """N x D."""
        found = torch.empty(len(pictures), self.dim)
        for size, members in _by_size(self.encoder, pictures).items():
            for first in range(0, len(members), BATCH):
                some = members[first : first + BATCH]
                maps = _encoded(self.encoder, [pictures[i] for i in some], size)
                found[some] = _whole(self.encoder, maps)
        return found


def _by_size(encoder: Encoder, pictures: list[Picture]) -> dict[tuple[int, int], list[int]]:
    """Indices of pictures that the encoder sees at one size."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, picture in enumerate(pictures):
        size = encoder.network_size(picture.shape[1], picture.shape[0])
        found.setdefault(size, []).append(i)
    return found


def _encoded(encoder: Encoder, pictures: list[Picture], size: tuple[int, int]) -> Any:
    batch = torch.stack([encoder.resize(picture, size) for picture in pictures])
    return encoder.encode(batch.to(encoder.device).float())


def _whole(encoder: Encoder, maps: Any) -> Tensor:
    whole = encoder.whole(maps)
    assert whole is not None  # a backbone has one
    return whole.float().cpu()


def _into(boxes: Tensor, picture: Picture, size: tuple[int, int]) -> Tensor:
    """From the picture's pixels to those of the network."""
    height, width = picture.shape[:2]
    return boxes * (torch.tensor([*size, *size]) / torch.tensor([width, height, width, height]))


def _cut(picture: Picture, box: Tensor) -> Picture:
    """The pixels that a box touches, at least one."""
    height, width = picture.shape[:2]
    x1, y1 = int(box[0].clamp(max=width - 1)), int(box[1].clamp(max=height - 1))
    x2, y2 = int(box[2].ceil()), int(box[3].ceil())
    return picture[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
