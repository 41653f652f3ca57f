"""Does an explanation point at the object that is meant?  Measured where the data set knows it.

Two ways of pointing at a region of the reference are compared:

attention   the region that the words which refer to the object attend to most, on average
change      the region that the fusion changes most: the distance between its mapped state
            before and after it, for the sentence as a whole

A region is right if its box overlaps that of the object by half (intersection over union).
Chance is a region drawn at random: the share of a reference's regions that are right.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.trainer.datasets.queries import MEANT, PHRASE
from cqr.trainer.features import RegionBatch, RegionReader
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.ranking.encode import BATCH
from cqr.trainer.text.vocabulary import TextReader

OVERLAP = 0.5


def measure(
    model: RetrievalModel,
    words: TextReader,
    reader: RegionReader,
    queries: pd.DataFrame,
    device: torch.device,
) -> dict[str, Any] | None:
    """How often each way that the model has points at the object meant.

    Args:
        model: in evaluation mode, on `device`.
        reader: of the regions that it is given.
        queries: the rows that are scored.

    Returns:
        queries, chance and a percentage by way; None where the data set knows no object, the
        model has no way, or no reference's regions overlap the object.
    """
    ways = [way for way, has in (("attention", model.attends), ("change", model.changes)) if has]
    if not {PHRASE, *MEANT} <= set(queries) or not ways or reader.kind == "whole":
        return None
    meant = queries[list(MEANT)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    rows = reader.rows(queries["reference"].tolist())
    known = (rows >= 0) & np.isfinite(meant).all(1)
    if not known.any():
        return None
    asked, rows, meant = queries[known], rows[known], meant[known]
    chance: list[float] = []
    hits: dict[str, list[bool]] = {way: [] for way in ways}
    for part in _batches(len(asked)):
        some, regions = asked.iloc[part], reader.gather(rows[part])
        sizes = np.asarray(reader.file.sizes)[rows[part]]
        right = overlaps(regions, meant[part], sizes) >= OVERLAP
        chance += (right.sum(1) / regions.mask.sum(1)).tolist()
        for way in ways:
            pointed = weights(model, words, regions, some, way, device).argmax(1)
            hits[way] += right[torch.arange(len(right)), pointed].tolist()
    if not sum(chance):
        return None
    percent = {way: 100 * float(np.mean(each)) for way, each in hits.items()}
    return {"queries": len(asked), "chance": 100 * float(np.mean(chance)), **percent}


@torch.inference_mode()
def weights(
    model: RetrievalModel,
    words: TextReader,
    regions: RegionBatch,
    queries: pd.DataFrame,
    way: str,
    device: torch.device,
) -> Tensor:
    """B x K on the CPU, by which a way points: at the greatest.  Less than 0 where nothing is."""
    texts = queries["text"].tolist()
    there, read = regions.to(device), words.encode(texts).to(device)
    if way == "change":
        found = model.changed(there, read)
    else:
        refers = torch.zeros(read.mask.shape, dtype=torch.bool)
        for row, text, phrase in zip(refers, texts, queries[PHRASE], strict=True):
            row[: len(row)][referring(words, text, str(phrase))] = True
        refers = refers.to(device) & read.mask
        found = (model.attention(there, read) * refers[..., None]).sum(1)
    return found.float().cpu().masked_fill(~regions.mask, -1)


def referring(words: TextReader, text: str, phrase: str) -> slice:
    """Which of the words of a text, as it is read, are those of a phrase in it.

    A reader may put marks around a text, which are left out of the phrase's; all words where
    the phrase is not found.
    """
    read, wanted = words.tokens(text), words.tokens(phrase)
    for part in (wanted, wanted[1:], wanted[:-1], wanted[1:-1]):
        for first in range(len(read) - len(part) + 1 if part else 0):
            if read[first : first + len(part)] == part:
                return slice(first, first + len(part))
    return slice(0, len(read))


def overlaps(regions: RegionBatch, meant: NDArray[np.float32], sizes: NDArray[np.int_]) -> Tensor:
    """B x K: intersection over union of each region and its query's object; 0 where none is."""
    aim = torch.from_numpy(meant / np.tile(sizes, 2).astype(np.float32))[:, None]
    low = torch.maximum(regions.boxes[..., :2], aim[..., :2])
    high = torch.minimum(regions.boxes[..., 2:], aim[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (regions.boxes, aim)]
    union = areas[0] + areas[1] - shared
    return (shared / union.clamp(min=1e-12)) * regions.mask


def _batches(size: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, size, BATCH))
