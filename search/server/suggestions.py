"""Texts to try: those that the data set of a run has."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cqr.errors import UserError
from cqr.search.world import Sight
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
        every: all that there are, the most frequent first.
        scenes: whether they are those of generated scenes.
    """

    own: dict[str, list[str]] = field(default_factory=dict)
    common: list[str] = field(default_factory=list)
    every: tuple[str, ...] = ()
    scenes: bool = False

    def of(self, path: str | None) -> list[str]:
        """For a picture of the gallery; None for another one."""
        return self.own.get(path or "", self.common)

    def of_new(self, sight: Sight | None) -> list[str]:
        """For a new picture: texts that name nothing that was not found in it."""
        if sight is None or not (sight.outside or sight.objects == 0):
            looks = sight and sight.looks
            if not (self.scenes and looks):
                return self.common
            return varied(text for text in self.every if names_one_of(text, looks))
        return []


def suggestions(run: Run, features: Path | None) -> Suggestions:
    """From the queries that go with the features; none where there are no queries."""
    try:
        material = collect_for(run, features, Wanted(), split=None, max_missing=1.0)
    except UserError:  # a gallery need not have queries
        return Suggestions()
    queries = material.dataset.queries
    by_picture = queries.groupby("reference", sort=False)["text"]
    own = {str(path): varied(texts) for path, texts in by_picture}
    every = tuple(queries["text"].value_counts().index)
    return Suggestions(own, varied(every), every, material.dataset.name == "css")


def names_one_of(text: str, looks: Sequence[frozenset[str]]) -> bool:
    """Whether a text of generated scenes asks to change or remove exactly one of these objects.

    Args:
        looks: of each object its colour, shape and size.
    """
    verb, *words = words_of(text) or [""]
    if verb not in ("make", "remove") or not words:
        return False
    value = words.pop() if verb == "make" else ""
    named = set(words) - {"object"}
    meant = [one for one in looks if named <= one]
    return bool(named) and len(meant) == 1 and value not in meant[0]  # else it is so already


def first(known: Suggestions, paths: list[str], run: Run) -> tuple[str, str]:
    """A picture and a text to begin with: the data's own for that picture, if there are any.

    Args:
        paths: of the gallery; at least one.

    Returns:
        The text is "" where no text is known that the model reads.
    """
    path = next((path for path in paths if known.own.get(path)), paths[0])
    texts = known.of(path)
    if not texts and run.vocabulary is None and not run.reads_nothing:
        texts = ["in red"]  # it reads any words
    return path, texts[0] if texts else ""


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
