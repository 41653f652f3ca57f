"""Which of a detector's candidate boxes become the K regions of a picture."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, nms

MIN_SIDE = 0.01
"""Boxes narrower or lower than this, in network pixels, are dropped (torchvision's own limit)."""

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
    boxes, classes, scores = _usable(candidates, size)
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
    return boxes[taken[:k]], scores[taken[:k]]


def _usable(candidates: Candidates, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Finite boxes, clipped to the picture, not empty, the best first."""
    boxes, scores = candidates.boxes.float(), candidates.scores.float()
    finite = boxes.isfinite().all(1) & scores.isfinite()
    boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([*size, *size]))
    usable = finite & (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(1)
    order = scores.where(usable, -1).argsort(descending=True, stable=True)[: int(usable.sum())]
    return boxes[order].cpu(), candidates.classes[order].cpu(), scores[order].cpu()


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
