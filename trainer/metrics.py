"""Ranks, and the measures of what was found: exactly, in bounded memory.

Equal scores rank in gallery order, so a result never depends on how a sort
breaks ties.  Images with the same vector, bit for bit, have equal scores.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.trainer import scores

GROUP = 64
"""Gallery images that are looked at as one while the best are sought."""


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
    """Rank the gallery for every query by dot product, in float32.

    Never holds more than scores.BLOCK scores (or those of one query).

    Args:
        queries: Q x E, finite.
        gallery: G x E, finite, on the same device.
        reference: Q; the place to remove from the gallery, or -1.
        correct: Q arrays of correct places; a removed place must not be among them.
        depth: T, how many of the best to return; at least 1.
    """
    found = Ranking(
        np.zeros(len(queries), np.int64),
        np.full((len(queries), depth), -1, np.int64),
        np.full((len(queries), depth), np.nan, np.float32),
    )
    if not len(gallery):
        return found
    wanted = min(depth, len(gallery))
    group = min(GROUP, len(gallery) // wanted)
    for first, block in scores.blocks(queries, gallery, reference, group):
        least = _reached(block, wanted, group)
        for row, line in enumerate(block.cpu().numpy()):
            best = _best(line, least[row], wanted)
            found.top[first + row, : len(best)] = best
            found.scores[first + row, : len(best)] = line[best]
            found.rank[first + row] = _first_correct(line, correct[first + row])
    return found


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


def _reached(block: Tensor, wanted: int, group: int) -> NDArray[np.float32]:
    """For each row, a score that at least `wanted` images reach, and not many more.

    It is the `wanted`-th greatest of the groups' maxima.  Finite, so that no
    removed image reaches it.
    """
    maxima = block.unflatten(1, (-1, group)).amax(2)
    least = maxima.topk(wanted, sorted=False).values.amin(1)
    return least.clamp(min=torch.finfo(block.dtype).min).cpu().numpy()


def _best(line: NDArray[np.float32], least: np.float32, wanted: int) -> NDArray[np.int64]:
    """The places of the `wanted` best of those that reach `least`, by (score, place)."""
    places = np.flatnonzero(line >= least)
    return places[np.argsort(-line[places], kind="stable")[:wanted]]


def _first_correct(line: NDArray[np.float32], correct: NDArray[np.int64]) -> int:
    """One more than the number of images ahead of the best correct one; 0 for none."""
    if not len(correct):
        return 0
    values = line[correct]
    best = values.max()
    at = correct[values == best].min()
    ahead = np.count_nonzero(line[:at] >= best) + np.count_nonzero(line[at + 1 :] > best)
    return int(ahead) + 1
