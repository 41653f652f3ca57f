"""What of a question was understood, said before its results."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cqr.search.question import Question, Reference
from cqr.trainer.text.vocabulary import TextReader, Vocabulary

How = Literal["read", "unknown", "cut"]
READ: How = "read"
UNKNOWN: How = "unknown"
CUT: How = "cut"

SOLIDS = {"cube": "rectangle", "sphere": "circle", "cylinder": "triangle"}
"""What generated scenes show, and the word of the CSS protocol for it."""

SCENES = "The texts of these scenes call " + ", ".join(
    f"a {shown} {word}" for shown, word in SOLIDS.items()
)


@dataclass(frozen=True)
class TextRead:
    """What a model reads of a text.

    Attributes:
        parts: the text in order, each part with what became of it: READ, UNKNOWN (a word that
            the model never saw) or CUT (beyond the model's length).
    """

    parts: tuple[tuple[str, How], ...]

    @property
    def text(self) -> str:
        return "".join(part for part, _ in self.parts)

    @property
    def unknown(self) -> list[str]:
        """The words that the model never saw, as they were typed, each once."""
        return list(dict.fromkeys(part for part, how in self.parts if how == UNKNOWN))

    @property
    def cut(self) -> str:
        """The end of the text that is not read."""
        return "".join(part for part, how in self.parts if how == CUT)

    @property
    def says_nothing(self) -> bool:
        """Whether no word of it is known."""
        return not any(how == READ and re.search(r"\w", part) for part, how in self.parts)


@dataclass(frozen=True)
class Understood:
    """What became of a question's parts.

    Attributes:
        texts: of each text, then of each that is not wanted.
        notes: what a user should know before the results, in sentences.
    """

    texts: tuple[TextRead, ...] = ()
    notes: tuple[str, ...] = ()


def understood(
    question: Question, words: TextReader, vocabulary: Vocabulary | None, scenes: bool = False
) -> Understood:
    """What a model understands of a question.

    Args:
        words: reads its texts.
        vocabulary: the words that the model knows; None where it reads pieces of any word.
        scenes: whether the data set is that of generated scenes.
    """
    typed = [*(t.text for t in question.texts), *question.nots]
    texts = tuple(read_of(text, words, vocabulary) for text in typed)
    return Understood(texts, (*_of_texts(texts, words, scenes), *notes_of(question.references)))


def notes_of(references: Sequence[Reference]) -> list[str]:
    """What is to be said of the new pictures among them."""
    return [note for r in references if r.sight is not None for note in r.sight.notes(r.name)]


def read_of(text: str, words: TextReader, vocabulary: Vocabulary | None) -> TextRead:
    """What is read of a text."""
    end = _read_to(text, words)
    parts: list[tuple[str, How]] = []
    begin = 0
    for first, last in vocabulary.places(text[:end]) if vocabulary else ():
        if vocabulary and vocabulary.unknown([text[first:last]]):
            parts += [(text[begin:first], READ), (text[first:last], UNKNOWN)]
            begin = last
    parts += [(text[begin:end], READ), (text[end:], CUT)]
    return TextRead(tuple(part for part in parts if part[0]))


def _read_to(text: str, words: TextReader) -> int:
    """Where the part of a text ends that is read: before the first word that is cut."""
    if not words.cut([text]):
        return len(text)
    places = [match.span() for match in re.finditer(r"\S+", text)]
    low, high = 0, len(places)  # as many whole words are surely read, and so many are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if words.cut([text[: places[middle - 1][1]]]) else (middle, high)
    return places[low - 1][1] if low else 0


def _of_texts(texts: Sequence[TextRead], words: TextReader, scenes: bool) -> list[str]:
    notes = []
    unknown = list(dict.fromkeys(word for text in texts for word in text.unknown))
    if unknown:
        notes.append(f"{', '.join(unknown)}: not known to this model")
    if scenes and any(word.lower().removesuffix("s") in SOLIDS for word in unknown):
        notes.append(SCENES)
    if texts and all(text.says_nothing for text in texts):
        notes.append(
            "No word of this question is known to this model: the results are no answer to it"
        )
    for text in texts:
        if text.cut:
            notes.append(
                f"Not read, beyond the {words.spec.max_words} words or word pieces that this "
                f"model reads: “{text.cut.strip()}”"
            )
    return notes
