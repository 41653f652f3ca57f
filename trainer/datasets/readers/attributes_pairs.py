"""Pairs of pictures that differ in one attribute, or whose captions differ in the fewest words.

Where the attributes are an adjective and a noun and the noun stays, this is the rule of MIT-States
in its clean form; where captions differ in one word, that of Fashion-200k in its clean form.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb
from typing import Protocol

import numpy as np
import pandas as pd

from cqr.trainer.datasets.families import Families, less_words
from cqr.trainer.datasets.groups import Groups, Index
from cqr.trainer.datasets.pairs import Drawn
from cqr.trainer.datasets.readers.attributes_texts import Change, Templates

MOST_WORDS = 3
"""In more words than these two captions are not said to differ in few."""

MOST_PARENTS = 300
"""A caption longer than lets so many ways of leaving words out is not looked at for that number."""

Described = tuple[str, ...]
"""What is known of a picture: its value in each column, "" for unknown; or its caption's words."""


class Rule(Protocol):
    """Which descriptions may be paired, and what a pair changes.

    Attributes:
        columns: that can change; none where words of captions do.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...

    def families(self, described: Sequence[Described]) -> Families:
        """Of descriptions, each there once."""

    def change(self, source: Described, target: Described) -> Change:
        """What is to be said of a pair."""


@dataclass(frozen=True)
class OneColumn:
    """Two pictures are equal in all columns but one.

    No pair changes a value that is not known; in the other columns two that are not known
    count as equal, since often they do not apply.

    Attributes:
        columns: their names.
    """

    columns: tuple[str, ...]

    def families(self, described: Sequence[Described]) -> Families:
        return Families(
            ((place, values[:place], values[place + 1 :]), child, value)
            for child, values in enumerate(described)
            for place, value in enumerate(values)
            if value
        )

    def change(self, source: Described, target: Described) -> Change:
        pairs = zip(self.columns, source, target, strict=True)
        [change] = [Change(column, old, new) for column, old, new in pairs if old != new]
        return change


class FewestWords:
    """Two captions differ in as few words as any other differs from the first, at most MOST_WORDS.

    So many words, each of which is there once, are left out of each, so that the rest is equal,
    word by word; and they are not the same ones.
    """

    columns: tuple[str, ...] = ()

    def families(self, described: Sequence[Described]) -> Families:
        rows: list[tuple[tuple[int, str], int, tuple[str, ...]]] = []
        asks: list[bool] = []
        left = set(range(len(described)))
        for number in range(1, MOST_WORDS + 1):
            wanted = {parent for child in left for parent, _ in _parents(described[child], number)}
            more = [
                ((number, parent), child, gone)
                for child, words in enumerate(described)
                for parent, gone in _parents(words, number)
                if parent in wanted
            ]
            asking = left & set(Families(more).askers.tolist())
            rows += more
            asks += [child in asking for _, child, _ in more]
            left -= asking
        return Families(rows, asks)

    def change(self, source: Described, target: Described) -> Change:
        old = [word for word in source if word not in target]
        new = [word for word in target if word not in source]
        return Change("", " ".join(old), " ".join(new))


def _parents(words: Described, number: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    return less_words(words, number) if comb(len(words), number) <= MOST_PARENTS else iter(())


class Pairs:
    """Every picture once an epoch that has another to go to, by a rule.

    Of those that differ from it as the rule says, a column (or words) to be changed is drawn, then
    a new value, then a picture that has it; the text by one of the templates.

    Args:
        queries: not used, since test queries are no training pairs.
        images: path, described (`Described`, or None for pictures of which nothing is known).
        rule: which may be paired.
        templates: for the texts.

    Attributes:
        sources: places of the pictures that can be asked from.
    """

    def __init__(
        self, queries: pd.DataFrame, images: pd.DataFrame, rule: Rule, templates: Templates
    ) -> None:
        images = images[images["described"].notna()]
        self.rule, self.templates = rule, templates
        self.paths = images["path"].to_numpy(object)
        codes: dict[Described, int] = {}
        of = [codes.setdefault(described, len(codes)) for described in images["described"]]
        self.description = np.array(of, dtype=np.int64)
        self.described = list(codes)
        self.families = rule.families(self.described)
        self.images = Groups(self.description)
        self.sources = np.flatnonzero(np.isin(self.description, self.families.askers))

    def __len__(self) -> int:
        return len(self.sources)

    def texts(self) -> Iterable[str]:
        yield from self.templates.words(self.rule.columns)
        for child in np.unique(self.families.child):
            yield " ".join(self.described[child])

    def draw(self, rng: np.random.Generator) -> Drawn:
        source = rng.permutation(self.sources)
        mine, other = self.families.draw(rng, self.description[source])
        target = self.images.draw(rng, self.families.child[other])
        which = rng.random(len(source))
        texts = [
            self.templates.drawn(change, at)
            for change, at in zip(self._changes(mine, other), which, strict=True)
        ]
        return Drawn(self.paths[source], np.array(texts, dtype=object), self.paths[target])

    def questions(self, rng: np.random.Generator) -> Iterator[tuple[str, Change, str]]:
        """Reference, change and a target: of every picture, one for each thing that can change."""
        place, mine = self.families.memberships(self.description)
        other = self.families.partners(rng, mine)
        target = self.images.draw(rng, self.families.child[other])
        changes = self._changes(mine, other)
        yield from zip(self.paths[place], changes, self.paths[target], strict=True)

    def _changes(self, mine: Index, other: Index) -> Iterator[Change]:
        child, described = self.families.child, self.described
        for source, target in zip(child[mine], child[other], strict=True):
            yield self.rule.change(described[source], described[target])
