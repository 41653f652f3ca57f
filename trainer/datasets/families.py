"""Descriptions that differ in little: what a rule for training pairs draws from.

What is left of a description without something is a parent; the descriptions of one parent are
its children, and two of them may be paired if what they are without, their key, differs.  For
Fashion-200k a description is a caption and something one of its words; for a table of attributes
it is a picture's values and something one of these.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np

from cqr.trainer.datasets.groups import Groups, Index


class Families:
    """The children of each parent that has two that may be paired.

    Args:
        rows: parent, child and key of each membership; a child is a whole number from 0.
        asks: whether pairs may start from each; None for all.

    Attributes:
        parent, child, key: of each membership that is left, whole numbers from 0.
        asking: those that pairs may start from.
        askers: their children, each once, sorted.
    """

    def __init__(
        self, rows: Iterable[tuple[Hashable, int, Hashable]], asks: Sequence[bool] | None = None
    ) -> None:
        parents: dict[Hashable, int] = {}
        keys: dict[Hashable, int] = {}
        numbers = [
            (parents.setdefault(parent, len(parents)), child, keys.setdefault(key, len(keys)))
            for parent, child, key in rows
        ]
        parent, child, key = np.array(numbers, dtype=np.int64).reshape(-1, 3).T
        distinct = np.unique(parent * len(keys) + key) // max(len(keys), 1)
        paired = np.bincount(distinct, minlength=len(parents))[parent] >= 2
        self.parent, self.child, self.key = parent[paired], child[paired], key[paired]
        may = np.ones(len(numbers), bool) if asks is None else np.array(asks, bool)
        self.asking = np.flatnonzero(may[paired])
        self.askers = np.unique(self.child[self.asking])
        self._own = Groups(self.child[self.asking])
        self._family = Groups(self.parent)

    def draw(self, rng: np.random.Generator, children: Index) -> tuple[Index, Index]:
        """For each child a membership of its own, and another of that family that it may pair with.

        As in TIRG's code a parent is drawn, then one of its children, both again until it is
        allowed; each child must be one that pairs start from.
        """
        mine, other = np.empty_like(children), np.empty_like(children)
        left = np.arange(len(children))
        while len(left):
            own = self.asking[self._own.draw(rng, children[left])]
            drawn = self._family.draw(rng, self.parent[own])
            allowed = self.key[own] != self.key[drawn]
            mine[left[allowed]], other[left[allowed]] = own[allowed], drawn[allowed]
            left = left[~allowed]
        return mine, other

    def memberships(self, children: Index) -> tuple[Index, Index]:
        """All that pairs may start from: places in `children`, and a membership of each."""
        places = np.flatnonzero(np.isin(children, self.askers))
        first, size = (of[children[places]] for of in (self._own.first, self._own.size))
        nth = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        own = self._own.order[np.repeat(first, size) + nth]
        return np.repeat(places, size), self.asking[own]

    def partners(self, rng: np.random.Generator, mine: Index) -> Index:
        """For each membership another of its family that it may pair with."""
        other = np.empty_like(mine)
        left = np.arange(len(mine))
        while len(left):
            drawn = self._family.draw(rng, self.parent[mine[left]])
            allowed = self.key[mine[left]] != self.key[drawn]
            other[left[allowed]] = drawn[allowed]
            left = left[~allowed]
        return other


def less_words(words: Sequence[str], number: int = 1) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is left of a caption without so many whole words that occur once, and these, sorted."""
    for places in combinations(range(len(words)), number):
        gone = [words[place] for place in places]
        rest = [word for place, word in enumerate(words) if place not in places]
        if not set(gone) & set(rest) and len(set(gone)) == number:
            yield " ".join(rest), tuple(sorted(gone))
