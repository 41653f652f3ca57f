"""Regions: the one thing that crosses from a detector to the feature file."""

import dataclasses
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Regions:
    """The K regions of one image, the most telling first.

    The feature of a row belongs to the box of that row: boxes are pooled after
    regression and suppression.  Rows are in the order in which they were
    selected: by score under the strictest suppression, then what each looser
    step adds, by score.  So the first 18 rows of K = 36 are exactly what an
    extraction with K = 18 gives.  Rows from `count` on are zero: the detector
    found fewer than K.  An image without any region has one: the whole image.

    Attributes:
        features: K x D float32.
        boxes: K x 4 float32, (x1, y1, x2, y2) in pixels of the upright image.
        scores: K float32, the detector's confidence in [0, 1].
        count: how many rows are real, 1 to K.
        whole: D float32, the feature of the box that covers the whole image.
        width: of the upright image, in pixels.
        height: the same.

    Raises:
        ValueError: on construction, if any of the above does not hold.
    """

    features: Floats
    boxes: Floats
    scores: Floats
    count: int
    whole: Floats
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.features.ndim != 2:
            raise ValueError(f"features must be K x D, are {self.features.shape}")
        k, dim = self.features.shape
        for name, shape in (("boxes", (k, 4)), ("scores", (k,)), ("whole", (dim,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, are {getattr(self, name).shape}")
        for name in ("features", "boxes", "scores", "whole"):
            value = getattr(self, name)
            if value.dtype != np.float32:
                raise ValueError(f"{name} must be float32, are {value.dtype}")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} has values that are not finite")
        if not 1 <= self.count <= k:
            raise ValueError(f"count must be between 1 and {k}, is {self.count}")
        x1, y1, x2, y2 = self.boxes[: self.count].T
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= self.width) & (y2 <= self.height)
        if not (inside & (x1 <= x2) & (y1 <= y2)).all():
            raise ValueError(f"a box lies outside the {self.width} x {self.height} image")
        for name in ("features", "boxes", "scores"):
            if getattr(self, name)[self.count :].any():
                raise ValueError(f"{name} beyond the {self.count} real regions must be zero")

    def resized(self, width: int, height: int) -> Self:
        """The same regions in the same picture of another size."""
        if (width, height) == (self.width, self.height):
            return self
        limit = np.array([width, height] * 2, np.float32)
        before = np.array([self.width, self.height] * 2, np.float32)
        boxes = np.minimum(self.boxes * (limit / before), limit)
        return dataclasses.replace(self, boxes=boxes, width=width, height=height)

    @property
    def k(self) -> int:
        return len(self.features)

    def _repr_html_(self) -> str:
        """The boxes in the picture's shape, the first drawn boldest, for a notebook."""
        drawn = "".join(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'
            f' stroke-opacity="{max(0.25, 1 - place / 12):.2f}"><title>{place + 1}: '
            f"{self.scores[place]:.3f}</title></rect>"
            for place, (x1, y1, x2, y2) in enumerate(self.boxes[: self.count].tolist())
        )
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" width="320" fill="none"'
            f' stroke="#0072b2" style="border:1px solid #9ca3af">'
            f'<g vector-effect="non-scaling-stroke" stroke-width="{self.width / 160:.2f}">{drawn}'
            f"</g></svg><p>{self.count} regions of {self.features.shape[1]} numbers in a picture "
            f"of {self.width} × {self.height}</p>"
        )

    def first(self, k: int) -> Self:
        """The first k regions: what an extraction with K = k holds."""
        if not 1 <= k <= self.k:
            raise ValueError(f"k must be between 1 and {self.k}, is {k}")
        return type(self)(
            self.features[:k],
            self.boxes[:k],
            self.scores[:k],
            min(self.count, k),
            self.whole,
            self.width,
            self.height,
        )
