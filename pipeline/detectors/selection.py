"""Which of a detector's candidate boxes become the K regions of a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms, box_iou, nms

MIN_SIDE = 0.01
"""Boxes narrower or lower than this, in network pixels, are dropped (torchvision's own limit)."""

BEST = 2048
"""Candidates of a picture that leave a GPU; where K are not among them, all do."""

_BLOCK = 1024  # candidates looked at together: a step that soon has K boxes looks no further


@dataclass(frozen=True)
class Candidates:
    """What a detector found in one picture, in any order.

    Attributes:
        boxes: N x 4 float32, (x1, y1, x2, y2) in network pixels, after
            regression.  They may stick out of the picture or be non-finite.
        classes: N int64.
        scores: N float32, in [0, 1].
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Selection:
    """The steps by which boxes are taken until there are K.

    Every step takes candidates by score, each that overlaps no box taken so far
    by more than the step's limit.  All limits of `nms` are tried with the first
    `min_score`, then all with the next.  The first step is the detector
    library's own rule: only boxes of one class suppress each other.  In the
    looser steps any two boxes do, for a region is a place, not a class.

    K only says where to stop.  So what K = 18 takes is how K = 36 begins.

    Attributes:
        nms: limits of the intersection over union, each in [0, 1).
        min_score: a candidate's score must be greater.
    """

    nms: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    min_score: tuple[float, ...] = (0.05, 0.01, 0.0)

    def steps(self) -> Iterator[tuple[float, float]]:
        for least in self.min_score:
            for overlap in self.nms:
                yield overlap, least


def select(
    candidates: Candidates, size: tuple[int, int], k: int, selection: Selection
) -> tuple[Tensor, Tensor]:
    """Take at most k of the candidates: n x 4 boxes and n scores, on the CPU.

    Candidates that are not finite are dropped, the others clipped to `size`,
    the (width, height) of the picture, in network pixels.  n < k only when the
    last step has nothing more to give.
    """
    return _whole(_ranked(candidates, size), k, selection)


def select_each(
    found: Sequence[Candidates], size: tuple[int, int], k: int, selection: Selection
) -> list[tuple[Tensor, Tensor]]:
    """`select` of each picture of a batch; what all have in common is selected once."""
    if all(each is found[0] for each in found[1:]):
        return [select(each, size, k, selection) for each in found[:1]] * len(found)
    if found[0].boxes.device.type == "cpu":
        return [select(each, size, k, selection) for each in found]
    return _select_from_best(found, size, k, selection)


def _select_from_best(
    found: Sequence[Candidates], size: tuple[int, int], k: int, selection: Selection
) -> list[tuple[Tensor, Tensor]]:
    """The same; candidates are ranked where they are, and the `BEST` of all pictures copied."""
    ranked = [_ranked(each, size) for each in found]
    best = pad_sequence([each[:BEST] for each in ranked], batch_first=True, padding_value=-1).cpu()
    taken = []
    for some, all_ in zip(best, ranked, strict=True):
        of_best = _taken(some, k, selection, more=len(all_) > BEST)
        taken.append(of_best or _whole(all_, k, selection))
    return taken


def _ranked(candidates: Candidates, size: tuple[int, int]) -> Tensor:
    """N x 6, the best first: boxes clipped to the picture, classes, scores; -1 is the score of
    what is not finite, or empty.
    """
    boxes, scores = candidates.boxes.float(), candidates.scores.float()
    finite = boxes.isfinite().all(1) & scores.isfinite()
    width, height = size
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    boxes = torch.stack((x, y), 2).flatten(1)
    usable = finite & (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(1)
    scores = scores.where(usable, -1)
    order = scores.argsort(descending=True, stable=True)
    return torch.cat((boxes, candidates.classes[:, None], scores[:, None]), 1)[order]


def _whole(ranked: Tensor, k: int, selection: Selection) -> tuple[Tensor, Tensor]:
    taken = _taken(ranked.cpu(), k, selection)
    assert taken is not None  # there are no more
    return taken


def _taken(
    ranked: Tensor, k: int, selection: Selection, more: bool = False
) -> tuple[Tensor, Tensor] | None:
    """At most k boxes and scores of `_ranked` candidates; None where there are more, and they
    may be among the k.
    """
    scores = ranked[:, 5]
    ranked = ranked[: int((scores >= 0).sum())]
    boxes, classes, scores = ranked[:, :4].contiguous(), ranked[:, 4].long(), ranked[:, 5]
    taken = torch.empty(0, dtype=torch.int64)
    for step, (overlap, least) in enumerate(selection.steps()):
        n = int((scores > least).sum())  # they are sorted: these are the first n
        if step == 0:
            kept = batched_nms(boxes[:n], scores[:n], classes[:n], overlap)
            taken = _distinct(boxes, kept.sort().values)
        else:
            taken = _extend(taken, boxes[:n], scores[:n], overlap, k)
        if len(taken) >= k:
            break
        if more and n == len(ranked):
            return None
    return boxes[taken[:k]], scores[taken[:k]]


def _distinct(boxes: Tensor, taken: Tensor) -> Tensor:
    """Without boxes that are exactly another, better one's: found as two classes, one region."""
    _, first = np.unique(boxes[taken].numpy(), axis=0, return_index=True)
    return taken[np.sort(first)]


def _extend(taken: Tensor, boxes: Tensor, scores: Tensor, overlap: float, k: int) -> Tensor:
    """Append to `taken`, by score, what overlaps none of it by more than `overlap`."""
    for block in torch.arange(len(boxes)).split(_BLOCK):
        # In double, as `nms` compares, so that a tie goes the same way in both.
        free = (box_iou(boxes[block], boxes[taken]).double() <= overlap).all(1)
        block = block[free]
        kept = nms(boxes[block], scores[block], overlap).sort().values
        taken = torch.cat((taken, block[kept]))
        if len(taken) >= k:
            break
    return taken
