"""MAAF: one stream of attention over an image's places and a text's words.

Dodds et al., "Modality-Agnostic Attention Fusion for visual search with text feedback"
(arXiv 2007.00145), by its code, yahoo/maaf `composition_models.py`, `MAAF`, and
`transformer.py`; of the first paper's commit, 49a0df9, the output token.

    T = [phi_x's local features; the words' states]            one sequence
    T <- T + drop(attention(norm T)),  T <- T + drop(W_2 drop(relu(W_1 norm T)))    blocks times
    T <- norm T
    phi_xt = 1/2 ( mean of T over the image's places + mean of T over the words )

A target goes the same way without words, so image and query share all weights.  norm is
the code's: a (x - mean) / (deviation + 1e-6) + b, by the deviation of a sample.  Depth,
width and heads are the code's; on CSS its script has no softmax (`attention` =
"identity": scores of what is not real are 0).  Left out: its position encodings, off by
default (sinusoidal ones of a sequence say nothing of a set).  Its resolutions are those
of a CNN's last maps; regions have one, of which resolution-wise pooling is the mean.
Ours: a word's vector need not go through an LSTM, and the encoders may be LBF's.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.models.whole import WholeConfig, image_encoder, pooled, text_encoder
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class MAAFConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`, whose `pool` is over each part of the stream.

    Attributes:
        output: what is pooled: "both", image and words, each by itself, then their mean;
            "image", the image's places alone; or "token", nothing: the vector is that of
            a learned token before the others.  All are the code's.
        blocks: of attention.  1 is the code's.
        stream_heads: of every attention.  8 is the code's.
        stream_hidden: between the two maps of a block.  256 is the code's.
        attention: "softmax" is the paper's, "identity" its script's for CSS.
        dropout: 0.1 is the code's.
    """

    output: Literal["both", "image", "token"] = "both"
    blocks: int = 1
    stream_heads: int = 8
    stream_hidden: int = 256
    attention: Literal["softmax", "identity"] = "softmax"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stream_heads < 1 or self.embed_dim % self.stream_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of stream_heads {self.stream_heads}"
            )


class MAAF(RetrievalModel):
    """phi_xt of the stream; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: MAAFConfig) -> None:
        super().__init__(config.scale)
        d = config.embed_dim
        self.config = config
        self.image = image_encoder(region_dim, config)
        self.text = text_encoder(text, config, whole=False)
        self.token = nn.Parameter(torch.randn(d)) if config.output == "token" else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = Norm(d)
        for module in (self.blocks, self.norm):
            for weight in module.parameters():
                if weight.dim() > 1:
                    nn.init.xavier_uniform_(weight)

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        return F.normalize(self._pooled([(self.image.local(regions), regions.mask)]), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        parts = [
            (self.image.local(regions), regions.mask),
            (self.text.local(words), words.mask),
        ]
        return F.normalize(self._pooled(parts), dim=-1)

    def _pooled(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """B x d of each modality's states and what of them is real."""
        if self.token is not None:
            size = len(parts[0][0])
            parts = [
                (self.token.expand(size, 1, -1), parts[0][1].new_ones(size, 1)),
                *parts,
            ]
        states = torch.cat([part for part, _ in parts], 1)
        mask = torch.cat([real for _, real in parts], 1)
        for block in self.blocks:
            states = block(states, mask)
        states = self.norm(states)
        if self.token is not None:
            first: Tensor = states[:, 0]
            return first
        found = states.split([part.shape[1] for part, _ in parts], 1)
        each = [
            pooled(one, real, self.config.pool) for one, (_, real) in zip(found, parts, strict=True)
        ]
        return each[0] if self.config.output == "image" else torch.stack(each).mean(0)


class _Block(nn.Module):
    def __init__(self, c: MAAFConfig) -> None:
        super().__init__()
        d = c.embed_dim
        self.heads, self.softmax = c.stream_heads, c.attention == "softmax"
        self.norms = nn.ModuleList(Norm(d) for _ in range(2))
        self.query, self.key, self.value, self.mix = (nn.Linear(d, d) for _ in range(4))
        self.first, self.second = nn.Linear(d, c.stream_hidden), nn.Linear(c.stream_hidden, d)
        self.drop = nn.Dropout(c.dropout)
        self.drop_weights = nn.Dropout(0.1)  # a constant of the code

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: B x N x d, mask: B x N; to B x N x d."""
        x = x + self.drop(self._attend(self.norms[0](x), mask))
        inner = self.drop(F.relu(self.first(self.norms[1](x))))
        out: Tensor = x + self.drop(self.second(inner))
        return out

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )  # B, heads, N, d / heads
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        absent = ~mask[:, None, None]
        if self.softmax:
            weights = scores.masked_fill(absent, -torch.inf).softmax(-1)
        else:
            weights = scores.masked_fill(absent, 0)
        mixed = self.drop_weights(weights) @ v
        out: Tensor = self.mix(mixed.transpose(1, 2).flatten(2))
        return out


class Norm(nn.Module):
    """a (x - mean) / (deviation + 1e-6) + b, the deviation that of a sample."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        out: Tensor = self.gain * centred / (x.std(-1, keepdim=True) + 1e-6) + self.bias
        return out
