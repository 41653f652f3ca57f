"""Ranks and recall, exactly, in bounded memory.

Equal scores rank in gallery order, so a result never depends on how a sort
breaks ties.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**25
"""Scores held at once: 128 MiB of float32."""


@dataclass(frozen=True)
class Ranking:
    """What Q queries found.

    Attributes:
        rank: Q int64, 1-based rank of the first correct image; 0 if the gallery
            has none.
        top: Q x T int64, the best gallery places, best first; -1 where the
            gallery is shorter.
        scores: Q x T float32, theirs; NaN where the gallery is shorter.
    """

    rank: NDArray[np.int64]
    top: NDArray[np.int64]
    scores: NDArray[np.float32]


def rank(
    queries: Tensor,
    gallery: Tensor,
    reference: NDArray[np.int64],
    correct: list[NDArray[np.int64]],
    depth: int = 50,
) -> Ranking:
    """Rank the gallery for every query by dot product.

    Args:
        queries: Q x E.
        gallery: G x E, on the same device.
        reference: Q; the place to remove from the gallery, or -1.
        correct: Q arrays of correct places; a removed place must not be among them.
        depth: T, how many of the best to return.
    """
    parts = [
        _rank_block(scores, reference[part], correct[part], depth)
        for part, scores in _blocks(queries, gallery)
    ]
    if not parts:
        return Ranking(
            np.empty(0, np.int64), np.empty((0, depth), np.int64), np.empty((0, depth), np.float32)
        )
    return Ranking(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def recall_at(ranks: NDArray[np.int64], k: int) -> float:
    """Percent of queries whose first correct image is among the first k; 0 for no query."""
    return 100 * float(np.mean((ranks >= 1) & (ranks <= k))) if len(ranks) else 0.0


def chance_at(correct: NDArray[np.int64], size: NDArray[np.int64], k: int) -> float:
    """Percent that a random order of the gallery would reach.

    Args:
        correct: Q, how many images are correct.
        size: Q, how many images the gallery has, the removed ones not counted.

    1 - C(n-c, k) / C(n, k), the chance that k draws without repetition hit one
    of c among n, averaged over the queries.
    """
    miss = np.ones(len(correct))
    for drawn in range(k):
        left = np.maximum(size - drawn, 0)
        miss *= np.where(left > 0, np.clip(left - correct, 0, None) / np.maximum(left, 1), 1)
    return 100 * float(np.mean(1 - miss)) if len(correct) else 0.0


def _blocks(queries: Tensor, gallery: Tensor) -> Iterator[tuple[slice, Tensor]]:
    rows = max(1, BLOCK // max(1, len(gallery)))
    for first in range(0, len(queries), rows):
        part = slice(first, first + rows)
        yield part, queries[part].float() @ gallery.float().T


def _rank_block(
    scores: Tensor, reference: NDArray[np.int64], correct: list[NDArray[np.int64]], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    removed = torch.from_numpy(np.flatnonzero(reference >= 0)).to(scores.device)
    scores[removed, torch.from_numpy(reference[reference >= 0]).to(scores.device)] = -torch.inf
    return (_first_correct(scores, correct), *_best(scores, depth))


def _first_correct(scores: Tensor, correct: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One more than the number of images ahead of the best correct one."""
    counts = np.array([len(c) for c in correct])
    row = torch.from_numpy(np.repeat(np.arange(len(correct)), counts)).to(scores.device)
    place = torch.from_numpy(np.concatenate(correct).astype(np.int64)).to(scores.device)
    best = scores.new_full((len(correct),), torch.inf)
    best.scatter_reduce_(0, row, scores[row, place], "amax", include_self=False)
    # of equally good correct images, the first in the gallery
    held = scores[row, place] == best[row]
    at = torch.full((len(correct),), scores.shape[1], device=scores.device)
    at.scatter_reduce_(0, row[held], place[held], "amin")
    before = torch.arange(scores.shape[1], device=scores.device) < at[:, None]
    ahead = (scores > best[:, None]) | ((scores == best[:, None]) & before)
    ranks = ahead.sum(1).cpu().numpy() + 1
    return np.where(counts > 0, ranks, 0)


def _best(scores: Tensor, depth: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first `depth` by (score, gallery order), removed images left out."""
    size = scores.shape[1]
    wanted = min(depth, size)
    values, places = (t.cpu().numpy() for t in scores.topk(min(wanted + 1, size), dim=1))
    order = np.lexsort((places, -values), axis=1)[:, :wanted]
    top = np.take_along_axis(places, order, 1)
    found = np.take_along_axis(values, order, 1)
    if wanted < size:
        # a tie across the cut: topk may have kept any of the equals
        for row in np.flatnonzero(values[:, -1] == values[:, -2]):
            line = scores[row].cpu().numpy()
            top[row] = np.argsort(-line, kind="stable")[:wanted]
            found[row] = line[top[row]]
    gone = np.isneginf(found)
    top, found = np.where(gone, -1, top), np.where(gone, np.nan, found).astype(np.float32)
    short = ((0, 0), (0, depth - wanted))
    return np.pad(top, short, constant_values=-1), np.pad(found, short, constant_values=np.nan)
