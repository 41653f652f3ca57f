"""Exact search: every vector is looked at, block by block, as it lies in the file."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cqr.search.gallery import Gallery, Vectors
from cqr.search.indexes import Rows, Scores

HELD = 2**24
"""Scores in memory at once: 64 MiB."""

BLOCK = 2048
"""Vectors that are made float32 at once: 4 MiB at E = 512, which stays in the cache."""

SLACK = 1e-5
"""More than a dot product of unit vectors in float32 can be wrong by."""

GROUP = 64


class Exact:
    """See `Index`."""

    name = "exact"

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Sequence[Rows],
        where: str | None = None,
    ) -> tuple[Rows, Scores]:
        vectors = self._gallery.vectors
        hidden = None
        if where is not None:
            from cqr.search.metadata import matching

            hidden = ~matching(where, self._gallery.metadata)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        step = max(1, HELD // len(vectors))
        for first in range(0, len(queries), step):
            some = queries[first : first + step]
            for number, line in enumerate(_products(some, vectors), start=first):
                if hidden is not None:
                    line[hidden] = -np.inf
                line[exclude[number]] = -np.inf
                found, reached = best(queries[number], vectors, _candidates(line, k), k)
                rows[number, : len(found)], scores[number, : len(found)] = found, reached
        return rows, scores


def best(query: NDArray[np.float32], vectors: Vectors, rows: Rows, k: int) -> tuple[Rows, Scores]:
    """The k best of some rows by (score, row): at most k rows, and their scores.

    The score of a vector is the same wherever it stands and whoever proposed it, which
    that of a matrix product is not.
    """
    exact = np.concatenate(
        [
            (vectors[rows[i : i + BLOCK]].astype(np.float64) * query).sum(1)
            for i in range(0, len(rows), BLOCK)
        ]
        or [np.empty(0)]
    ).astype(np.float32)
    order = np.lexsort((rows, -exact))[:k]
    return rows[order], exact[order]


def _products(queries: NDArray[np.float32], vectors: Vectors) -> Scores:
    """B x N dot products in float32."""
    out = np.empty((len(queries), len(vectors)), np.float32)
    stored = torch.from_numpy(vectors)  # whose conversion to float32 is several times numpy's
    held = torch.empty(min(BLOCK, len(vectors)), vectors.shape[1])
    for first in range(0, len(vectors), BLOCK):
        part = stored[first : first + BLOCK]
        block = held[: len(part)].copy_(part).numpy()
        np.matmul(queries, block.T, out=out[:, first : first + BLOCK])
    return out


def _candidates(line: Scores, k: int) -> Rows:
    """Rows among which are the k best, and not many more; none that is -inf."""
    least = np.float32(np.finfo(np.float32).min)
    if k < len(line):
        # At least k rows reach the k-th greatest of the groups' maxima.
        group = max(1, min(GROUP, len(line) // k))
        maxima = np.maximum.reduceat(line, np.arange(0, len(line), group))
        least = max(least, np.partition(maxima, -k)[-k] - np.float32(SLACK))
    return np.flatnonzero(line >= least)
