"""Pretrained text encoders: what a frozen language model says of each word piece of a text.

Each text is encoded by itself: in a batch, the others and the padding would
change the last bits of its features, and a resumed training would not end with
the weights of one that was never stopped.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cqr.digest import sha256
from cqr.errors import UserError
from cqr.trainer.text import pretrained
from cqr.trainer.text.pretrained import Source
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

CACHE_BYTES = 2**30
"""Of features that a process keeps: some 150,000 texts of 9 word pieces, 384 wide."""


@dataclass(frozen=True)
class Identity:
    """What decides the features of a text, kept with a run.

    Attributes:
        name: of a bundled model or a hub's, or the absolute path of a folder.
        sha256: of each file that was read, by name.
        dim: T, the width of a feature.
        max_words: word pieces of a text that are read; longer texts are cut.
        versions: of the libraries behind it.
    """

    name: str
    sha256: dict[str, str]
    dim: int
    max_words: int
    versions: dict[str, str]

    @property
    def spec(self) -> TextSpec:
        return TextSpec(self.max_words, dim=self.dim)

    def require(self, other: "Identity") -> None:
        """Raises UserError unless `other` reads the same files as this one."""
        for file in sorted(self.sha256.keys() | other.sha256.keys()):
            if self.sha256.get(file) != other.sha256.get(file):
                raise UserError(
                    f"the text encoder {other.name} is not the one that the run was trained with "
                    f"(its {file} differs): bring that one back, name the folder where it lies "
                    "with --text-encoder, or train again"
                )


class TextEncoder:
    """Texts to the features of their word pieces; see `load`.

    A feature is a last hidden state, in float16.  Marks that the tokenizer puts
    around a text (such as [CLS]) are read by the encoder and left out here, but
    for a text in which there is nothing else.

    Attributes:
        identity: what decides the features.
    """

    def __init__(self, source: Source, max_words: int) -> None:
        self._name = source.name
        self._tokenizer, self._net = pretrained.read(source)
        self._marks = self._tokenizer.num_special_tokens_to_add()
        self._max_words = min(max_words, _limit(self._tokenizer, self._net) - self._marks)
        self._lock = threading.Lock()  # tokenizers refuse two threads at once
        self._kept = Kept(CACHE_BYTES)
        with pretrained.understood(source.name, source.folder):
            longest = self._features(" ".join(["a"] * self._max_words))
        self.identity = Identity(
            name=source.name,
            sha256={path.name: sha256(path) for path in source.files},
            dim=longest.shape[1],
            max_words=self._max_words,
            versions={name: version(name) for name in ("tokenizers", "torch", "transformers")},
        )

    @property
    def spec(self) -> TextSpec:
        return self.identity.spec

    def to(self, device: torch.device | str) -> Self:
        """This encoder, from now on computing there; what it returns lies in main memory."""
        self._net.to(device)
        return self

    def encode(self, texts: list[str]) -> WordBatch:
        """B x N x T float16 features, zeros beyond each text's last word piece.

        Raises:
            UserError: a feature lies beyond float16.
        """
        rows = [self._row(text) for text in texts]
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return WordBatch(pad_sequence(rows, batch_first=True), mask)

    def cut(self, texts: Iterable[str]) -> int:
        """How many of the texts have more word pieces than `spec.max_words`."""
        all_texts = list(texts)
        if not all_texts:  # tokenizers fail on none
            return 0
        with self._lock:
            ids = self._tokenizer(all_texts, add_special_tokens=False, verbose=False)["input_ids"]
        return sum(len(row) > self._max_words for row in ids)

    def tokens(self, text: str) -> list[str]:
        """The word pieces that are read, as parts of the text; a text of none is shown as it is."""
        with self._lock:
            read = self._tokenizer(
                text, add_special_tokens=False, truncation=True, max_length=self._max_words
            )
            pieces = [self._tokenizer.decode([number]) for number in read["input_ids"]]
        return pieces or [text]

    def _row(self, text: str) -> Tensor:
        with self._lock:
            kept = self._kept.get(text) or self._kept.put(text, (self._features(text),))
            return kept[0]

    @torch.no_grad()
    def _features(self, text: str) -> Tensor:
        """N x T float16, computed anew."""
        read = self._tokenizer(
            text,
            truncation=True,
            max_length=self._max_words + self._marks,
            return_special_tokens_mask=True,
        )
        words = ~torch.tensor(read["special_tokens_mask"], dtype=torch.bool)
        ids = torch.tensor([read["input_ids"] or [_blank(self._tokenizer)]])
        device = next(self._net.parameters()).device
        with torch.autocast(device.type, enabled=False):
            states = self._net(
                input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device)
            ).last_hidden_state[0]
        features: Tensor = (states[words.to(device)] if words.any() else states).half().cpu()
        if not torch.isfinite(features).all():
            raise UserError(
                f"text encoder {self._name}: the features of {text!r} are beyond float16; "
                "choose another encoder"
            )
        return features


class Kept:
    """What was computed of a text; texts that were not asked for longest make room.

    Args:
        room: bytes of tensors that are kept at most.
    """

    def __init__(self, room: int) -> None:
        self._rows: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._room = room

    def get(self, text: str) -> tuple[Tensor, ...] | None:
        if text in self._rows:
            self._rows.move_to_end(text)
        return self._rows.get(text)

    def put(self, text: str, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Keep what is not kept yet, and give it back."""
        self._rows[text] = parts
        self._room -= _bytes(parts)
        while self._room < 0:
            self._room += _bytes(self._rows.popitem(last=False)[1])
        return parts


def _bytes(parts: tuple[Tensor, ...]) -> int:
    return sum(part.nbytes for part in parts)


def load(name: str, max_words: int) -> TextEncoder:
    """The pretrained text encoder of that name; one process loads it once.

    Args:
        name: as for `pretrained.find`.
        max_words: word pieces of a text to read, at most what the model takes.

    Raises:
        UserError: there is no such model, it cannot be had here, or it is of no
            use; see `pretrained.find` and `pretrained.read`.
    """
    source = pretrained.find(name)
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in source.files)
    return _load(source, stamps, max_words)


@functools.lru_cache(maxsize=1)
def _load(source: Source, stamps: tuple[tuple[int, int], ...], max_words: int) -> TextEncoder:
    """By `stamps`, too, so that a file that changed is read again."""
    return TextEncoder(source, max_words)


def _limit(tokenizer: Any, net: Any) -> int:
    """Tokens that the model takes, as far as it says."""
    places = getattr(net.config, "max_position_embeddings", None)
    limit: int = min(tokenizer.model_max_length, places or tokenizer.model_max_length)
    return limit


def _blank(tokenizer: Any) -> int:
    """The token that stands for a text without any."""
    marks = (tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
    return next((mark for mark in marks if mark is not None), 0)
