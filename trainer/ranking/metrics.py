"""Ranks, and the measures of what was found: exactly, in bounded memory.

Equal scores rank in gallery order, so a result never depends on how a sort
breaks ties.  Images with the same vector, bit for bit, have equal scores.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.trainer.ranking import scores

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
        maxima, least = _reached(block, wanted, group)
        lines = block.cpu().numpy()
        for row, line in enumerate(lines):
            best = _best(line, maxima[row], least[row], wanted)
            found.top[first + row, : len(best)] = best
            found.scores[first + row, : len(best)] = line[best]
        found.rank[first : first + len(lines)] = _firsts(lines, correct[first : first + len(lines)])
    return found


def rank_among(
    queries: Tensor,
    gallery: Tensor,
    members: NDArray[np.int64],
    correct: list[NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank a few given images for each query by dot product, in float32.

    This is CIRR's Recall_subset: the six members of the reference's image set
    without the reference, in the order of their scores (Liu et al., "Image
    Retrieval on Real-life Images with Pre-trained Vision-and-Language Models",
    ICCV 2021; CIRPLANT's eval_test_scoring_step_CIRR and CLIP4Cir's
    compute_cirr_val_metrics, which keep the members in the sorted gallery).

    Args:
        queries: Q x E, finite.
        gallery: G x E, finite, on the same device.
        members: Q x M places, distinct within a query; -1 for one that the
            gallery lacks or that is removed.
        correct: Q arrays of correct places.

    Returns:
        Q int64, 1-based rank of the first correct member, 0 if none is correct;
        Q x M int64, the members best first, -1 at the end.

    Raises:
        ValueError: a query has a member twice.
    """
    found = rank_within(queries, gallery, members, correct)
    return found.rank, found.top


def rank_within(
    queries: Tensor,
    gallery: Tensor,
    members: NDArray[np.int64],
    correct: list[NDArray[np.int64]],
) -> Ranking:
    """Rank for each query a gallery of its own by dot product, in float32.

    The arguments are those of `rank_among`.

    Returns:
        Of all M members, T = M; the rank is that of the first correct member.

    Raises:
        ValueError: a query has a member twice.
    """
    _check_distinct(members)
    queries, gallery = queries.detach().float(), gallery.detach().float()
    places = torch.tensor(members, device=gallery.device)
    ranked = np.empty_like(members)
    best = np.full(members.shape, np.nan, np.float32)
    rows = max(1, scores.BLOCK // max(1, members.shape[1] * gallery.shape[1]))
    for first in range(0, len(queries), rows):
        part = slice(first, first + rows)
        # not a matrix product: a sum is the same for the same vector wherever it stands
        reached = (queries[part, None] * gallery[places[part].clamp(min=0)]).sum(2)
        reached[places[part] < 0] = -torch.inf
        values = reached.cpu().numpy()
        order = np.lexsort((members[part], -values), axis=1)
        ranked[part] = np.take_along_axis(members[part], order, 1)
        best[part] = np.take_along_axis(values, order, 1)
    hits = _hits(ranked, correct)
    rank_of_first = np.where(hits.any(1), hits.argmax(1) + 1, 0)
    return Ranking(rank_of_first, ranked, np.where(ranked >= 0, best, np.float32(np.nan)))


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


def map_at(top: NDArray[np.int64], correct: list[NDArray[np.int64]], k: int) -> float:
    """Percent: the mean over queries of `average_precision`, mAP@k; 0 for no query."""
    return 100 * float(np.mean(average_precision(top, correct, k))) if len(top) else 0.0


def average_precision(
    top: NDArray[np.int64], correct: list[NDArray[np.int64]], k: int
) -> NDArray[np.float64]:
    """AP@k of each query, 0 to 1, as CIRCO defines it.

        AP@k = sum over i <= k of P@i * rel(i) / min(number of correct images, k)

    where rel(i) is 1 if the i-th image is correct, else 0, and P@i the share of
    correct ones among the first i (Baldrati et al., "Zero-Shot Composed Image
    Retrieval with Textual Inversion", ICCV 2023; compute_metrics in CIRCO's
    src/evaluation.py).  A query without a correct image has 0.

    Args:
        top: Q x T places, best first; -1 is no image. Only T of k count if T < k.
        correct: Q arrays of distinct correct places. An image that the gallery
            lacks is a negative place: it counts as correct and is never found.

    Raises:
        ValueError: a query has a place twice.
    """
    _check_distinct(top)
    hits = _hits(top, correct)[:, :k]
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    number = np.array([len(c) for c in correct], np.int64)
    precisions: NDArray[np.float64] = (precision * hits).sum(1) / np.clip(number, 1, k)
    return precisions


def _hits(top: NDArray[np.int64], correct: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Q x T, which of the places are correct."""
    hits = np.zeros(top.shape, bool)
    for row, places in enumerate(correct):
        hits[row] = np.isin(top[row], places) & (top[row] >= 0)
    return hits


def _check_distinct(places: NDArray[np.int64]) -> None:
    ordered = np.sort(places, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, column = np.argwhere(twice)[0]
        raise ValueError(f"query {row} has the place {ordered[row, column]} twice")


def _reached(
    block: Tensor, wanted: int, group: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The maxima of each row's groups, and a score that `wanted` images reach, and not many more.

    It is the `wanted`-th greatest of the maxima.  Finite, so that no removed image reaches it.
    """
    maxima = block.unflatten(1, (-1, group)).amax(2)
    least = maxima.topk(wanted, sorted=False).values.amin(1)
    least = least.clamp(min=torch.finfo(block.dtype).min)
    return maxima.cpu().numpy(), least.cpu().numpy()


def _best(
    line: NDArray[np.float32], maxima: NDArray[np.float32], least: np.float32, wanted: int
) -> NDArray[np.int64]:
    """The places of the `wanted` best of those that reach `least`, by (score, place)."""
    group = len(line) // len(maxima)
    groups = np.flatnonzero(maxima >= least)
    values = line.reshape(-1, group)[groups].ravel()
    at = np.flatnonzero(values >= least)
    at = at[np.argsort(-values[at], kind="stable")[:wanted]]
    places: NDArray[np.int64] = groups[at // group] * group + at % group
    return places


def _firsts(lines: NDArray[np.float32], correct: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """For each row one more than the images ahead of its best correct one; 0 where it has none."""
    ranks = np.zeros(len(lines), np.int64)
    number = np.array([len(places) for places in correct])
    rows = np.flatnonzero(number)
    if not len(rows):
        return ranks
    starts = np.cumsum(number[rows]) - number[rows]
    places = np.concatenate([correct[row] for row in rows])
    values = lines[np.repeat(rows, number[rows]), places]
    best = np.maximum.reduceat(values, starts)
    equal = values == np.repeat(best, number[rows])
    first = np.minimum.reduceat(np.where(equal, places, lines.shape[1]), starts)
    for row, score, at in zip(rows, best, first.tolist(), strict=True):
        line = lines[row]
        ahead = np.count_nonzero(line[:at] >= score) + np.count_nonzero(line[at + 1 :] > score)
        ranks[row] = ahead + 1
    return ranks
