"""Rows by a label: what drawing training pairs needs again and again."""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


class Groups:
    """Rows of a table by their label.

    Args:
        label: of each row; whole numbers from 0.

    Attributes:
        label: the same.
        order: the rows, those of one label together, in order.
        first, size: of each label, its first place in `order` and the number of its rows.
    """

    def __init__(self, label: Index) -> None:
        self.label = label
        self.order = np.argsort(label, kind="stable")
        self.size = np.bincount(label)
        self.first = np.cumsum(self.size) - self.size

    def draw(self, rng: np.random.Generator, labels: Index) -> Index:
        """One row of each of `labels`, all rows of a label alike; each must have one."""
        drawn: Index = self.order[self.first[labels] + rng.integers(0, self.size[labels])]
        return drawn
