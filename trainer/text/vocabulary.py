"""Texts as a model reads them: words to ids, or what a pretrained encoder says of each token."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.machine import moved
from cqr.trainer.text.words import SPLIT, Splitter, places_of, splitter_for

PAD, UNKNOWN = 0, 1


@dataclass
class WordBatch:
    """The words of B texts.

    Attributes:
        tokens: B x N int64 ids, or B x N x T float features; 0 where there is no word.
        mask: B x N bool, True where there is a word; each text has at least one.
        vector: B x E float32, each text in the space of the pictures, of any length; 0 for a
            text that says nothing.  None where the reader knows no such space.
        weight: B, how much each text counts beside its picture; None: 1.
    """

    tokens: Tensor
    mask: Tensor
    vector: Tensor | None = None
    weight: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        def there(part: Tensor | None) -> Tensor | None:
            return None if part is None else moved(part, device)

        tokens, mask = moved(self.tokens, device), moved(self.mask, device)
        return type(self)(tokens, mask, there(self.vector), there(self.weight))

    def filled(self, n: int) -> Self:
        """The same with n places for words, at least N."""
        more = n - self.mask.shape[1]
        tokens = F.pad(self.tokens, (0, 0) * (self.tokens.dim() - 2) + (0, more))
        return replace(self, tokens=tokens, mask=F.pad(self.mask, (0, more)))

    def __len__(self) -> int:
        return len(self.mask)

    def reordered(self, cuts: Tensor) -> Self:
        """The same texts, but that in each two neighbouring runs of words have changed places.

        Args:
            cuts: B x 3 in [0, 1), each row rising: where the first run begins, where the second
                does, and where that ends, as shares of a text.  Of three that are equal, none.
        """
        size = self.mask.sum(1, keepdim=True)
        first, second, end = (cuts * (size + 1)).long().split(1, dim=1)
        at = torch.arange(self.mask.shape[1], device=size.device).expand(self.mask.shape)
        moved = torch.where(at < first + end - second, at + second - first, at + second - end)
        at = torch.where((at >= first) & (at < end), moved, at)
        tokens = self.tokens[torch.arange(len(self), device=size.device)[:, None], at]
        return replace(self, tokens=tokens)


@dataclass(frozen=True)
class TextSpec:
    """What a model is told about its words when it is built.

    Attributes:
        max_words: N at most.
        words: ids lie below it; 0 where words are features.
        dim: T, the width of a word's feature; None where words are ids.
    """

    max_words: int
    words: int = 0
    dim: int | None = None


class TextReader(Protocol):
    """Texts to words: a `Vocabulary`, a pretrained `TextEncoder`, or a joint space's `Tower`."""

    @property
    def spec(self) -> TextSpec: ...

    def encode(self, texts: list[str]) -> WordBatch:
        """N is that of the longest of the texts; what exceeds `spec.max_words` is cut."""
        ...

    def cut(self, texts: Iterable[str]) -> int:
        """How many of the texts `encode` cuts."""
        ...

    def tokens(self, text: str) -> list[str]:
        """What is read of a text, as it may be shown: one string for each word of `encode`."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows, from its training texts.

    Attributes:
        words: in order of their ids, which start at 2; 0 pads, 1 is unknown.
        max_words: longer texts are cut.
        splitter: how texts are taken apart; runs from before there was a choice have the default.
    """

    words: tuple[str, ...]
    max_words: int
    splitter: Splitter = "spaced"

    @classmethod
    def of(cls, texts: Iterable[str], max_words: int = 32) -> "Vocabulary":
        """Every word of `texts`, the frequent first, ties by the alphabet."""
        kept = list(texts)
        splitter = splitter_for(kept)
        counts = Counter(word for text in kept for word in SPLIT[splitter](text))
        words = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
        return cls(words, max_words, splitter)

    def __len__(self) -> int:
        return len(self.words) + 2

    def split(self, text: str) -> list[str]:
        """All words of a text."""
        return SPLIT[self.splitter](text)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where the words of a text begin and end in it."""
        return places_of(text, self.splitter)

    def once(self, texts: Iterable[str]) -> int:
        """How many of the words occur once in different texts."""
        counts = Counter(word for text in set(texts) for word in self.split(text))
        return sum(counts[word] == 1 for word in self.words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words, start=2)}

    @property
    def spec(self) -> TextSpec:
        return TextSpec(self.max_words, words=len(self))

    def encode(self, texts: list[str]) -> WordBatch:
        """Ids, padded with 0 to the longest text; a wordless text is one unknown word."""
        read = [self.split(text)[: self.max_words] for text in texts]
        ids = [[self._ids.get(word, UNKNOWN) for word in words] or [UNKNOWN] for words in read]
        longest = max(map(len, ids))
        out = torch.tensor([line + [PAD] * (longest - len(line)) for line in ids])
        return WordBatch(out, out != PAD)

    def tokens(self, text: str) -> list[str]:
        """The words that are read; a wordless text is shown as it is."""
        return self.split(text)[: self.max_words] or [text]

    def cut(self, texts: Iterable[str]) -> int:
        """How many of the texts have more words than `max_words`."""
        return sum(len(self.split(text)) > self.max_words for text in texts)

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """The words of `texts` that this vocabulary lacks, with their counts."""
        return Counter(w for text in texts for w in self.split(text) if w not in self._ids)
