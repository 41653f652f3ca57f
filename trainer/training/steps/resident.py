"""What a training reads, brought to its GPU once where it fits: regions, and words."""

from collections.abc import Iterable

import numpy as np
import torch

from cqr.machine import moved
from cqr.trainer.features import RegionReader
from cqr.trainer.text.vocabulary import TextReader, TextSpec, WordBatch

CHUNK = 4096
"""Texts that are on their way to a device at a time."""

SHARE = 0.5
"""Of a GPU's free memory, what may be taken; the rest is for the steps."""


def room(device: torch.device) -> int:
    """Bytes that may be taken; of main memory none, where the shards are mapped as it is."""
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def near(reader: RegionReader, device: torch.device) -> RegionReader:
    """A reader whose images lie on the device, or the same where they do not fit."""
    return reader.on(device) if reader.bytes <= room(device) else reader


def read_once(words: TextReader, texts: Iterable[str], device: torch.device) -> TextReader:
    """A reader of these texts' words that lie on the device, or the same where they do not fit."""
    space = room(device)
    known = sorted(set(texts)) if space else []
    fits = known and _bytes(words.spec) * len(known) <= space
    return Once(words, known, device) if fits else words


def _bytes(spec: TextSpec) -> int:
    """Of a text at most: ids, or features and a vector of the same space, and the mask."""
    return spec.max_words * (9 if spec.dim is None else 2 * spec.dim + 1) + 4 * (spec.dim or 0)


class Once:
    """A `TextReader` that has encoded its texts, all at once; others it encodes as they come.

    Args:
        texts: each once, one at least.
    """

    def __init__(self, words: TextReader, texts: list[str], device: torch.device) -> None:
        self.words = words
        self.spec = words.spec
        self.device = device
        self._row = {text: row for row, text in enumerate(texts)}
        self._every = _together(
            [words.encode(texts[i : i + CHUNK]).to(device) for i in range(0, len(texts), CHUNK)]
        )
        self._length = self._every.mask.sum(1).cpu().numpy()

    def encode(self, texts: list[str]) -> WordBatch:
        rows = np.array([self._row.get(text, -1) for text in texts])
        if (rows < 0).any():
            return self.words.encode(texts).to(self.device)
        longest = int(self._length[rows].max())
        at = moved(torch.from_numpy(rows), self.device)
        every = self._every
        read = WordBatch(
            every.tokens[:, :longest].index_select(0, at),
            every.mask[:, :longest].index_select(0, at),
        )
        if every.vector is not None:
            read.vector = every.vector.index_select(0, at)
        return read

    def cut(self, texts: Iterable[str]) -> int:
        return self.words.cut(texts)

    def tokens(self, text: str) -> list[str]:
        return self.words.tokens(text)


def _together(parts: list[WordBatch]) -> WordBatch:
    longest = max(part.mask.shape[1] for part in parts)
    filled = [part.filled(longest) for part in parts]
    vectors = [part.vector for part in filled if part.vector is not None]
    return WordBatch(
        torch.cat([part.tokens for part in filled]),
        torch.cat([part.mask for part in filled]),
        torch.cat(vectors) if vectors else None,
    )
