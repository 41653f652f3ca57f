"""Which regions of a reference each word of a text looks at."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextReader


@dataclass(frozen=True)
class Attended:
    """One query's words over its reference's regions.

    Attributes:
        words: N strings, what the model reads of the text; or the text as a whole, where the
            weights are how far it changes each region.
        boxes: K x 4 float32, (x1/W, y1/H, x2/W, y2/H) in [0, 1], the real regions only.
        weights: N x K float32, rows summing to 1.
    """

    words: list[str]
    boxes: NDArray[np.float32]
    weights: NDArray[np.float32]


@torch.inference_mode()
def attended(
    model: RetrievalModel,
    words: TextReader,
    regions: RegionBatch,
    texts: list[str],
    device: torch.device,
) -> list[Attended]:
    """The last fusion layer's word-to-region attention, its heads averaged (`LBF.attention`).

    Args:
        model: in evaluation mode, on `device`.
        regions: of B references.
        texts: B.

    Raises:
        UserError: the model has no such attention.
    """
    if not model.attends:
        raise UserError("the words of this model do not attend to regions: only lbf's do")
    weights = model.attention(regions.to(device), words.encode(texts).to(device)).float().cpu()
    out = []
    for text, row, boxes, mask in zip(texts, weights, regions.boxes, regions.mask, strict=True):
        names = words.tokens(text)
        kept = row[: len(names), : len(mask)][:, mask]
        out.append(Attended(names, boxes[mask].numpy(), kept.numpy()))
    return out
