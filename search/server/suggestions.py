"""Texts to try: those that the data set of a run has."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cqr.errors import UserError
from cqr.trainer.text.words import spaced as words_of
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.runs import Run

MOST = 6


@dataclass(frozen=True)
class Suggestions:
    """Texts to try, MOST at a time.

    Attributes:
        own: those of each picture that is a reference of the data set, by its path.
        common: those that many have.
    """

    own: dict[str, list[str]] = field(default_factory=dict)
    common: list[str] = field(default_factory=list)

    def of(self, path: str | None) -> list[str]:
        """For a picture of the gallery; None for another one."""
        return self.own.get(path or "", self.common)


def suggestions(run: Run, features: Path | None) -> Suggestions:
    """From the queries that go with the features; none where there are no queries."""
    try:
        material = collect_for(run, features, Wanted(), split=None, max_missing=1.0)
    except UserError:  # a gallery need not have queries
        return Suggestions()
    queries = material.dataset.queries
    by_picture = queries.groupby("reference", sort=False)["text"]
    own = {str(path): varied(texts) for path, texts in by_picture}
    return Suggestions(own, varied(queries["text"].value_counts().index))


def varied(texts: Iterable[str]) -> list[str]:
    """MOST of the texts at most, in turn by their first words, so that they are unlike."""
    by_word: dict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        if words := words_of(text):
            by_word[words[0]].append(text)
    turns = [text for line in _turns(list(by_word.values())) for text in line]
    return turns[:MOST]


def _turns(lines: list[list[str]]) -> Iterable[list[str]]:
    for turn in range(MOST):
        yield [line[turn] for line in lines if turn < len(line)]
