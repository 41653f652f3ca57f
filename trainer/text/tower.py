"""Texts in the space of the pictures, by the text tower that belongs to their features."""

import functools
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cqr.errors import UserError
from cqr.trainer.text import towers
from cqr.trainer.text.encoder import CACHE_BYTES, Identity, Kept
from cqr.trainer.text.joint import Joint
from cqr.trainer.text.vocabulary import TextReader, TextSpec, WordBatch


def phrases() -> list[str]:
    """Some hundred plain phrases of what pictures show and of how they may be changed."""
    text = files("cqr.trainer.text").joinpath("phrases.txt").read_text(encoding="utf-8")
    return text.splitlines()


class JointReader(TextReader, Protocol):
    """A `TextReader` whose `WordBatch.vector` is where the pictures are: a `Tower`, say.

    Attributes:
        temperature: by which the space's model multiplies cosines; None where it is not known.
    """

    temperature: float | None

    def phrases(self) -> Tensor:
        """T x E, vectors of plain phrases."""
        ...


class Tower:
    """Texts to vectors, and to what the tower's last layer says of their word pieces.

    Each text is read by itself, and once; see `encoder`.  Marks that the tokenizer puts around
    a text are left out of its word pieces.

    Attributes:
        identity: what decides all of it.
        temperature: by which the model multiplies cosines; None where it does not say.
    """

    def __init__(self, joint: Joint) -> None:
        self._net = towers.read(joint)
        self._name = joint.name
        self._lock = threading.Lock()  # tokenizers refuse two threads at once
        self._kept = Kept(CACHE_BYTES)
        self.temperature = self._net.temperature
        vector, states = self._read("a")
        if len(vector) != joint.dim:
            raise UserError(
                f"the text tower {joint.name} makes vectors of {len(vector)} numbers, the features "
                f"have {joint.dim}: extract the pictures again"
            )
        self.identity = Identity(
            name=joint.name,
            sha256={**joint.weights, **joint.tokenizer},
            dim=states.shape[1],
            max_words=self._net.pieces,
            versions={name: version(name) for name in self._net.versions},
        )

    @property
    def spec(self) -> TextSpec:
        return self.identity.spec

    def to(self, device: torch.device | str) -> Self:
        """This tower, from now on computing there; what it returns lies in main memory."""
        self._net.network.to(device)
        return self

    def encode(self, texts: list[str]) -> WordBatch:
        """B x N x T float16 states, zeros beyond each text's last word piece; B x E vectors.

        The vector of a text without a word is 0.

        Raises:
            UserError: a state lies beyond float16.
        """
        read = [self._read(text) for text in texts]
        states = [row for _, row in read]
        lengths = torch.tensor([len(row) for row in states])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        vectors = torch.stack([vector for vector, _ in read])
        return WordBatch(pad_sequence(states, batch_first=True), mask, vectors)

    def phrases(self) -> Tensor:
        """T x E, vectors of `phrases`."""
        vector = self.encode(phrases()).vector
        assert vector is not None
        return vector

    def cut(self, texts: Iterable[str]) -> int:
        """How many of the texts have more word pieces than are read."""
        with self._lock:
            return sum(len(self._net.ids(text)) > self._net.pieces for text in texts)

    def tokens(self, text: str) -> list[str]:
        """The word pieces that are read, as parts of the text; a text of none is shown as it is."""
        with self._lock:
            return [self._net.shown(i) for i in self._net.ids(text)[: self._net.pieces]] or [text]

    def _read(self, text: str) -> tuple[Tensor, Tensor]:
        """E float32 and N x T float16."""
        with self._lock:
            vector, states = self._kept.get(text) or self._kept.put(text, self._computed(text))
            return vector, states

    @torch.no_grad()
    def _computed(self, text: str) -> tuple[Tensor, Tensor]:
        device = next(self._net.network.parameters()).device
        with torch.autocast(device.type, enabled=False):
            said = self._net.say(text)
        states = said.states.half()
        if not (torch.isfinite(states).all() and torch.isfinite(said.vector).all()):
            raise UserError(
                f"text tower {self._name}: what it says of {text!r} is beyond float16; extract "
                "with another model"
            )
        return said.vector * (not said.empty), states


class Silent:
    """In place of a tower where there is no space that texts share with the pictures.

    Args:
        why: what is said when a text is asked about, in one sentence.
    """

    spec = TextSpec(1, words=1)

    def __init__(self, why: str) -> None:
        self._why = why

    def encode(self, texts: list[str]) -> WordBatch:
        """Raises UserError, always."""
        raise UserError(self._why)

    def cut(self, texts: Iterable[str]) -> int:
        return 0

    def tokens(self, text: str) -> list[str]:
        return [text]


def load(joint: Joint) -> Tower:
    """The text tower of a space; one process reads it once.

    Raises:
        UserError: it cannot be had here, or is another by now.
    """
    return _load(json.dumps(asdict(joint), sort_keys=True))


@functools.lru_cache(maxsize=1)
def _load(joint: str) -> Tower:
    said: Mapping[str, Any] = json.loads(joint)
    return Tower(Joint(**said))
