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
from cqr.trainer.text.vocabulary import TextReader, WordBatch

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
    asked, rows, meant = known(queries, reader)
    if not len(asked):
        return None
    chance, right = hits(model, words, reader, asked, rows, meant, ways, device)
    if not sum(chance):
        return None
    percent = {way: 100 * float(np.mean(each)) for way, each in right.items()}
    return {"queries": len(asked), "chance": 100 * float(np.mean(chance)), **percent}


def hits(
    model: RetrievalModel,
    words: TextReader,
    reader: RegionReader,
    asked: pd.DataFrame,
    rows: NDArray[np.int64],
    meant: NDArray[np.float32],
    ways: list[str],
    device: torch.device,
) -> tuple[list[float], dict[str, list[bool]]]:
    """Of each query the share of its regions that are right, and by way whether it points at one.

    Args:
        asked, rows, meant: as `known` has them.
    """
    chance: list[float] = []
    found: dict[str, list[bool]] = {way: [] for way in ways}
    for part in _batches(len(asked)):
        some, regions = asked.iloc[part], reader.gather(rows[part])
        sizes = np.asarray(reader.file.sizes)[rows[part]]
        right = overlaps(regions, meant[part], sizes) >= OVERLAP
        chance += (right.sum(1) / regions.mask.sum(1)).tolist()
        for way in ways:
            pointed = weights(model, words, regions, some, way, device).argmax(1)
            found[way] += right[torch.arange(len(right)), pointed].tolist()
    return chance, found


def known(
    queries: pd.DataFrame, reader: RegionReader
) -> tuple[pd.DataFrame, NDArray[np.int64], NDArray[np.float32]]:
    """The queries whose object is known and whose reference has regions, the rows of these, and
    its box, M x 4 pixels.
    """
    meant = queries[list(MEANT)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    rows = reader.rows(queries["reference"].tolist())
    there = (rows >= 0) & np.isfinite(meant).all(1)
    return queries[there], rows[there], meant[there]


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
        refers = referring_words(words, read, queries).to(device)
        found = (model.attention(there, read) * refers[..., None]).sum(1)
    return found.float().cpu().masked_fill(~regions.mask, -1)


def referring_words(words: TextReader, read: WordBatch, queries: pd.DataFrame) -> Tensor:
    """B x N bool: which of the words of texts, as they were read, refer to the object meant."""
    refers = torch.zeros(read.mask.shape, dtype=torch.bool)
    for row, text, phrase in zip(refers, queries["text"], queries[PHRASE], strict=True):
        row[referring(words, text, str(phrase))] = True
    return refers & read.mask.cpu()


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


def overlaps(
    regions: RegionBatch, meant: NDArray[np.float32], sizes: NDArray[np.integer]
) -> Tensor:
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
