"""What a source of features offers, whatever its format, and how that becomes Regions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cqr.listing import Failure, is_utf8, readable
from cqr.pipeline.regions import Floats, Regions

EXTRAS = {"classes": "<i4", "attributes": "<i4", "attribute_scores": "<f4"}
"""What a source may say of a region beyond its confidence; dataset regions/NAME of that dtype."""

ROUNDING = 1.0
"""A box may leave its picture by so many pixels: sources find boxes in a resized picture, whose
size was rounded.  Such boxes are clipped, as in an extraction; others are refused."""


class Broken(Exception):
    """An entry that cannot be used; the message completes "X ..."."""


class Kind(NamedTuple):
    """What the entries of one feature file have in common.

    Attributes:
        dim: D.
        extras: those of EXTRAS that are there.
        ranked: whether confidences say which regions come first; else the source's order does.
    """

    dim: int
    extras: tuple[str, ...]
    ranked: bool

    def __str__(self) -> str:
        what = [f"{self.dim} values a region", *self.extras]
        return ", ".join([*what, "confidences"] if self.ranked else what)


class Entry(NamedTuple):
    """One picture of a source, as a quick look shows it.

    Attributes:
        id: its name in the source.
        place: where the source holds it; in order, entries are read fastest.
        note: the place for people, such as "line 12", or "".
        regions: how many.
        kind: see there.
    """

    id: str
    place: Any
    note: str
    regions: int
    kind: Kind


@dataclass(frozen=True, eq=False)
class Found:
    """One picture's n regions, as and in the order in which the source holds them.

    Attributes:
        features: n x D, of any float.
        boxes: n x 4, (x1, y1, x2, y2) in pixels; None: each is the whole picture.
        confidence: n, or None.
        extras: name in EXTRAS to n values.
        size: width and height of the picture; None: the source does not say.
        fractions: boxes are fractions of the picture's width and height, not pixels.
    """

    features: NDArray[Any]
    boxes: NDArray[Any] | None
    confidence: NDArray[Any] | None
    extras: Mapping[str, NDArray[Any]]
    size: tuple[int, int] | None
    fractions: bool = False


class Source(Protocol):
    """Features that somebody else made.

    Attributes:
        format: for people.
        sized: whether it says how large its pictures are.
        notes: what the user should know of how it is read, a sentence each.
    """

    format: str

    @property
    def sized(self) -> bool: ...

    @property
    def notes(self) -> list[str]: ...

    def entries(self) -> Iterator[Entry | Failure]:
        """Every picture that it holds, or why that cannot be used; values are not read."""
        ...

    def read(self, entry: Entry) -> Found:
        """Raises Broken if its values cannot be had."""
        ...

    def close(self) -> None: ...


def file_by_file(names: Sequence[str], look: Callable[[str], Entry]) -> Iterator[Entry | Failure]:
    """The entries of a folder with a file a picture; `look` raises Broken where one is no use."""
    for name in names:
        if not is_utf8(name):
            yield Failure(readable(name), "name is not valid UTF-8")
            continue
        try:
            yield look(name)
        except Broken as error:
            yield Failure(name, str(error))


def regions(
    found: Found, k: int, size: tuple[int, int], ranked: bool
) -> tuple[Regions, dict[str, NDArray[np.number]]]:
    """The first k regions, and their extras: the most confident ones if `ranked`, else in order.

    Without confidences, scores are 0.  The whole picture's feature is the mean
    of all regions that the source has of it.

    Raises:
        Broken: a value is not finite or does not fit, or a box lies outside the picture.
    """
    n = len(found.features)
    with np.errstate(over="ignore"):
        features = found.features.astype(np.float32)
    if not np.isfinite(features).all():
        raise Broken("has features that are not finite")
    boxes = found.boxes
    if boxes is not None and found.fractions:
        boxes = boxes.astype(np.float32) * np.tile(np.array(size, np.float32), 2)
    boxes = _inside(boxes, n, size)
    scores = np.zeros(n, np.float32)
    order = np.arange(n)
    if found.confidence is not None:
        scores = found.confidence.astype(np.float32)
        if not np.isfinite(scores).all():
            raise Broken("has confidences that are not finite")
    if ranked:
        order = np.argsort(-scores, kind="stable")
    order = order[:k]
    count = len(order)

    def padded(values: Floats) -> Floats:
        rows = np.zeros((k, *values.shape[1:]), np.float32)
        rows[:count] = values[order]
        return rows

    whole = features.mean(0, dtype=np.float64).astype(np.float32)
    made = Regions(padded(features), padded(boxes), padded(scores), count, whole, *size)
    extras = {name: _fitting(name, values)[order] for name, values in found.extras.items()}
    return made, extras


def _inside(boxes: NDArray[Any] | None, n: int, size: tuple[int, int]) -> Floats:
    width, height = size
    if width < 1 or height < 1:
        raise Broken(f"has a picture of {width} x {height} pixels")
    limit = np.array([width, height, width, height], np.float32)
    if boxes is None:
        return np.tile(np.array([0, 0, width, height], np.float32), (n, 1))
    boxes = boxes.astype(np.float32)
    if not np.isfinite(boxes).all():
        raise Broken("has boxes that are not finite")
    if boxes.max() <= 1 < min(size):
        raise Broken("has all boxes within its first pixel: they must be in pixels, no fractions")
    outside = (boxes < -ROUNDING) | (boxes > limit + ROUNDING)
    turned = (boxes[:, :2] > boxes[:, 2:]).any(1)
    wrong = np.flatnonzero(outside.any(1) | turned)
    if len(wrong):
        values = ", ".join(f"{value:.6g}" for value in boxes[wrong[0]])
        raise Broken(f"has the box ({values}), which is none in {width} x {height} pixels")
    return boxes.clip(0, limit)


def _fitting(name: str, values: NDArray[Any]) -> NDArray[np.number]:
    dtype = np.dtype(EXTRAS[name])
    if dtype.kind == "f":
        values = values.astype(dtype)
        if not np.isfinite(values).all():
            raise Broken(f"has {name} that are not finite")
        return values
    fitting = values.astype(dtype)
    if (fitting != values).any():
        raise Broken(f"has {name} that are no 32-bit integers")
    return fitting
