"""What is shown of a question: the way of pointing that scored best, with its score, or nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.trainer.evaluation.attended import Attended, attended
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextReader
from cqr.trainer.training.runs import Run

Way = Literal["attention", "change"]
"""See `pointing`."""

CLEAR = 0.25
"""A way is shown if it is this far, or further, from chance to 100 %."""


ALIKE = 1.2
"""Times its equal share: if no region adds more than this, their shares say nothing.  The page of
`cqr serve` has the same number."""


@dataclass(frozen=True)
class Shown:
    """The way of pointing that a page shows.

    Attributes:
        way: None: none, since the best is too near chance.
        right: share of the queries in which it points at the object meant, in percent; None
            where the data set knows no object, or nothing was measured.
        chance: the same of a region drawn at random.
        queries: that this was measured on.
    """

    way: Way | None
    right: float | None = None
    chance: float | None = None
    queries: int = 0

    @property
    def said(self) -> str:
        """The score in words; "" where there is none."""
        if self.right is None:
            return ""
        return (
            f"It points at the object that is meant in {self.right:.1f} % of the {self.queries:,} "
            f"queries that mean one (a region at random: {self.chance:.1f} %)."
        )


@dataclass(frozen=True)
class Shares:
    """Why a picture was found: what each of its regions adds to its score.

    Attributes:
        boxes: K x 4 float32, (x1/W, y1/H, x2/W, y2/H) in [0, 1], the real regions only.
        shares: K float32, which sum to the score; a region may speak against the picture.
        score: of which the shares leave no rest, unless the model pools more than regions.
    """

    boxes: NDArray[np.float32]
    shares: NDArray[np.float32]
    score: float

    def parts(self) -> NDArray[np.float32]:
        """K shares of the score; none, so K = 0, where they say nothing: of one region, of regions
        that have no boxes, of a score that is not above 0, or where all add alike.
        """
        parts: NDArray[np.float32] = self.shares / max(self.score, 1e-9)
        placed = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1).any()
        clear = self.score > 0 and len(parts) > 1 and parts.max() >= ALIKE / len(parts)
        return parts if placed and clear else parts[:0]


def shown_of(run: Run) -> Shown:
    """The way of pointing that scored best when the run was last evaluated, or none near chance.

    A run that was not scored on a data set which knows the object has attention, unmeasured.
    """
    file = Stored(run.evaluation()).metrics
    if not file.is_file():
        return Shown("attention")
    try:
        return best(json.loads(file.read_text(encoding="utf-8")).get("pointing"))
    except ValueError:
        return Shown("attention")


def best(pointing: Mapping[str, Any] | None) -> Shown:
    """The way that scored best, of what `measure` returned."""
    if not pointing:
        return Shown("attention")
    way: Way = max((w for w in get_args(Way) if w in pointing), key=lambda w: pointing[w])
    right, chance = pointing[way], pointing["chance"]
    clear = right >= chance + CLEAR * (100 - chance)
    return Shown(way if clear else None, right, chance, pointing["queries"])


def has(model: RetrievalModel, way: Way | None) -> bool:
    """Whether a model can be shown so."""
    return {"attention": model.attends, "change": model.changes, None: False}[way]


@torch.inference_mode()
def explained(
    model: RetrievalModel,
    words: TextReader,
    regions: RegionBatch,
    texts: list[str],
    device: torch.device,
    way: Way,
) -> list[Attended]:
    """What texts mean of their references, by the way of pointing that is shown.

    "attention": see `attended`.  "change": one row for the text as a whole, each region's share
    of the distances by which the fusion moves them (`LBF.changed`).

    Raises:
        UserError: the model has no such way.
    """
    if way == "attention":
        return attended(model, words, regions, texts, device)
    if not model.changes:
        raise UserError("the texts of this model change no region by itself: only lbf's do")
    moved = model.changed(regions.to(device), words.encode(texts).to(device)).float().cpu()
    out = []
    for text, row, boxes, mask in zip(texts, moved, regions.boxes, regions.mask, strict=True):
        share = row[: len(mask)][mask] / row.sum().clamp(min=1e-12)
        out.append(Attended([text], boxes[mask].numpy(), share[None].numpy()))
    return out


@torch.inference_mode()
def shares_of(
    model: RetrievalModel, query: torch.Tensor, regions: RegionBatch, device: torch.device
) -> list[Shares]:
    """What each region of images adds to their scores with a query.

    Args:
        model: one that `divides`, in evaluation mode, on `device`.
        query: E, a unit vector.
        regions: of B images.
    """
    regions, query = regions.to(device), query.to(device).expand(len(regions.mask), -1)
    scores = (model.encode_image(regions) * query).sum(1).tolist()
    found = model.shares(regions, query).float().cpu().numpy()
    masks, boxes = regions.mask.cpu().numpy(), regions.boxes.cpu().numpy()
    return [
        Shares(box[mask], share[mask], score)
        for box, mask, share, score in zip(boxes, masks, found, scores, strict=True)
    ]
