"""What is asked: pictures and texts, and what may be an answer."""

import math
import re
from dataclasses import dataclass, field, replace

from cqr.errors import UserError
from cqr.search.world import Sight
from cqr.trainer.features import RegionBatch

_WEIGHTED = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*:(.*)", re.DOTALL)

MOST = 10_000
"""Results of one question."""


@dataclass(frozen=True)
class Reference:
    """A picture to start from.

    Attributes:
        name: its path in the gallery, or what the user called it.
        regions: a batch of one.
        row: in the gallery; None for a picture that is not in it.
        seconds: what it took to have it, by part: "decode", "detect".
        parts: a batch of one, of all its regions, also where `regions` is the whole image;
            None where nobody asked for them.
        sight: what was seen of a picture that is not in the gallery.
    """

    name: str
    regions: RegionBatch
    row: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    parts: RegionBatch | None = None
    sight: Sight | None = None

    def only(self, region: int) -> "Reference":
        """One region, as if it were all that the picture shows.

        Args:
            region: its place in `parts`, from 0.

        Raises:
            UserError: there are not so many.
        """
        there = 0 if self.parts is None else int(self.parts.mask.sum())
        if self.parts is None or region >= there:
            raise UserError(f"{self.name} has {there} regions, and so none of the number {region}")
        one = slice(region, region + 1)
        features, boxes = self.parts.features[:, one], self.parts.boxes[:, one]
        whole = None if self.regions.whole is None else features[:, 0]
        batch = RegionBatch(features, boxes, self.parts.mask[:, one], whole)
        return replace(self, regions=batch)


@dataclass(frozen=True)
class WeightedText:
    """A text, and how much it counts beside the others; the weight is above 0."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Question:
    """What to find; `vector.vector_of` says what it means.

    Attributes:
        references: pictures to start from; none where the texts are all that is known, which
            not every model can answer.
        texts: what is to be changed; none asks for what looks like the references.
        nots: texts of what is not wanted.
        more, less: pictures that were found, to be nearer to, and further from.
        k: how many results at most.
        keep_references: whether the references may be results.
        where: a condition on the metadata; see `metadata`.

    Raises:
        UserError: on construction, if there is neither reference nor text, a text without a
            word, or k is out of range.
    """

    references: tuple[Reference, ...]
    texts: tuple[WeightedText, ...] = ()
    nots: tuple[str, ...] = ()
    k: int = 10
    keep_references: bool = False
    where: str | None = None
    more: tuple[Reference, ...] = ()
    less: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        if not self.references and not self.texts:
            raise UserError("a question needs a picture to start from: name one with --image")
        if not 1 <= self.k <= MOST:
            raise UserError(f"--k {self.k} is not between 1 and {MOST:,}")
        for text in (*(t.text for t in self.texts), *self.nots):
            if not text.strip():
                raise UserError("a text is blank: say what is to change, or leave it out")


def weighted(typed: str) -> WeightedText:
    """ "make it red" counts 1; "2:make it red" counts 2.

    A text that itself begins with a number and a colon is typed with a weight before it.

    Raises:
        UserError: the weight is 0 or too large.
    """
    match = _WEIGHTED.fullmatch(typed)
    if match is None:
        return WeightedText(typed)
    weight = float(match[1])
    if not (weight > 0 and math.isfinite(weight)):
        raise UserError(
            f"--text {typed!r}: the weight must be above 0; --not moves away from a text"
        )
    return WeightedText(match[2].strip(), weight)
