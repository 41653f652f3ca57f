"""Which results are so nearly the same picture that one stands for all."""

import numpy as np
from numpy.typing import NDArray

from cqr.search.gallery import Vectors

SAME = 0.99
"""Dot product of two unit vectors from which on they are of one picture; see docs/serve.md."""

WINDOW = 200
"""Results before one that are compared with it: what is alike has like scores, and so is near."""


def leaders(vectors: Vectors) -> NDArray[np.int64]:
    """For each result the first one that it is nearly the same as; itself, where there is none.

    Args:
        vectors: N x E, of the results, best first.

    Returns:
        N places, none greater than its own.
    """
    first = np.arange(len(vectors))
    held = vectors.astype(np.float32)
    for place in range(1, len(held)):
        before = max(0, place - WINDOW)
        same = np.flatnonzero(held[before:place] @ held[place] >= SAME)
        if len(same):
            first[place] = first[before + same[0]]
    return first
