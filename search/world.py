"""Whether a new picture is of the world that the gallery is of, and what was found in it.

A picture from elsewhere is found "like" something with full confidence: an empty scene is the
nearest to whatever has no object.  So its feature, that of the whole picture, is held against
those of the gallery, and so are these against each other: a picture whose nearest neighbour is
further than nearly every picture of the gallery has its own is from elsewhere.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cqr.pipeline.regions import Regions
from cqr.trainer.features import RegionReader

SAMPLE = 2000
"""Pictures of the gallery that are looked at; their number bounds time and memory."""

LEAST = 50
"""Pictures below which nothing is said: they are no world yet."""

USUAL = 0.002
"""Share of the gallery's pictures that may be further from their nearest than `World.usual`."""

OBJECTS = ("bundled", "torchvision", "detectron2")
"""Detectors whose regions are objects that they found; others describe cells or the whole."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sight:
    """What was seen of a new picture.

    Attributes:
        objects: how many were found; None where regions are no objects.
        boxes: N x 4 float32 of these, (x1/W, y1/H, x2/W, y2/H) in [0, 1].
        nearest: cosine of its feature to the nearest of the gallery's, -1 to 1.
        usual: what nearly all of the gallery's pictures have to their own nearest; None where
            the gallery is too small to say.
        knows: what alone the detector knows, such as "generated scenes"; or "".
        looks: of each object what it is called, where the detector says: colour, shape, size.
    """

    objects: int | None
    boxes: Floats
    nearest: float
    usual: float | None
    knows: str
    looks: tuple[frozenset[str], ...] | None = None

    @property
    def outside(self) -> bool:
        """Whether the picture is unlike all of the gallery's."""
        return self.usual is not None and self.nearest < self.usual

    def notes(self, name: str) -> list[str]:
        """What to say of it, in sentences without a full stop.

        Args:
            name: what the picture is called.
        """
        said = []
        name = "The picture" if name == "the picture" else name  # it has no name of its own
        if self.objects is not None:
            said.append(f"{name}: {self.objects} object{'' if self.objects == 1 else 's'} found")
        if self.outside:
            only = f" and this run knows {self.knows} only," if self.knows else ""
            said.append(
                f"{name} is unlike every picture of the gallery (similarity {self.nearest:.3f} to "
                f"the nearest, where theirs is {self.usual:.3f} or more),{only} so the results "
                "say little"
            )
        return said


@dataclass(frozen=True, eq=False)
class World:
    """Some of the gallery's pictures as whole features.

    Attributes:
        known: S x D float32, unit length.
        usual: see `Sight.usual`.
        detector: name of the one that made the features.
    """

    known: Floats
    usual: float | None
    detector: str

    @classmethod
    def of(cls, reader: RegionReader) -> Self:
        """Of the pictures of a feature file, at most SAMPLE of them, always the same."""
        rows = np.sort(np.random.default_rng(0).permutation(len(reader))[:SAMPLE])
        known = _unit(reader.seen_as("whole").gather(rows).features[:, 0].float().numpy())
        usual = float(np.quantile(_to_nearest(known), USUAL)) if len(known) >= LEAST else None
        return cls(known, usual, reader.file.detector.get("name", ""))

    def sight(self, regions: Regions) -> Sight:
        """What is seen of a picture with these regions, found by the detector of the file."""
        size = np.array([regions.width, regions.height] * 2, np.float32)
        boxes = regions.boxes[: regions.count] / size
        if regions.count == 1 and np.array_equal(boxes[0], [0, 0, 1, 1]):
            boxes = boxes[:0]  # no object: the whole picture stands in for one
        finds = self.detector in OBJECTS
        stored = regions.whole.astype(np.float16).astype(np.float32)  # as the file would hold it
        return Sight(
            objects=len(boxes) if finds else None,
            boxes=boxes if finds else boxes[:0],
            nearest=float((self.known @ _unit(stored)).max()),
            usual=self.usual,
            knows="generated scenes" if self.detector == "bundled" else "",
            looks=_looks(regions.features[: len(boxes)]) if self.detector == "bundled" else None,
        )


def _looks(features: Floats) -> tuple[frozenset[str], ...] | None:
    """What the bundled detector calls objects with these features; None where they do not say."""
    from cqr.pipeline.detectors.bundled import words  # with torchvision

    said = words(features)
    return None if said is None else tuple(frozenset(one.values()) for one in said)


def _unit(features: Floats) -> Floats:
    unit: Floats = features / np.linalg.norm(features, axis=-1, keepdims=True).clip(1e-12)
    return unit


def _to_nearest(known: Floats) -> Floats:
    """S, of each picture the cosine to the nearest other one."""
    alike = known @ known.T
    np.fill_diagonal(alike, -1)
    nearest: Floats = alike.max(1)
    return nearest
