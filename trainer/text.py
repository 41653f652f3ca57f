"""Words to ids."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

PAD, UNKNOWN = 0, 1
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")


def words_of(text: str) -> list[str]:
    """Lower-cased words; "top-left" and "isn't" are one word each."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows, from its training texts.

    Attributes:
        words: in order of their ids, which start at 2; 0 pads, 1 is unknown.
        max_words: longer texts are cut.
    """

    words: tuple[str, ...]
    max_words: int

    @classmethod
    def of(cls, texts: Iterable[str], max_words: int = 32) -> "Vocabulary":
        """Every word of `texts`, the frequent first, ties by the alphabet."""
        counts = Counter(word for text in texts for word in words_of(text))
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))), max_words)

    def __len__(self) -> int:
        return len(self.words) + 2

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words, start=2)}

    def encode(self, texts: list[str]) -> Tensor:
        """B x N int64, padded with 0 to the longest text; a wordless text is one unknown word."""
        ids = [
            [self._ids.get(word, UNKNOWN) for word in words_of(text)[: self.max_words]] or [UNKNOWN]
            for text in texts
        ]
        out = torch.full((len(ids), max(map(len, ids))), PAD)
        for row, line in zip(out, ids, strict=True):
            row[: len(line)] = torch.tensor(line)
        return out

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """The words of `texts` that this vocabulary lacks, with their counts."""
        return Counter(w for text in texts for w in words_of(text) if w not in self._ids)
