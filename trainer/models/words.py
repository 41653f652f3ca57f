"""The first layers of every model that reads words."""

import torch
from torch import Tensor, nn

from cqr.trainer.text.vocabulary import PAD, TextSpec, WordBatch


def word_layer(text: TextSpec, width: int) -> nn.Module:
    """B x N ids, or B x N x T features, to B x N x width: a table, or a linear map with a norm."""
    if text.dim is None:
        return nn.Embedding(text.words, width, padding_idx=PAD)
    return _FeatureLayer(text.dim, width)


class _FeatureLayer(nn.Module):
    """LN(W f + b), as a region's feature is embedded; f may be of any float type.

    Without the norm, features of a small scale drown in what they are added to,
    a position's embedding.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.norm(self.map(features.to(self.map.weight.dtype)))
        return out


class WordLSTM(nn.LSTM):
    """One layer of LSTM over B x N x D words: the state after each, B x N x width.

    On a CPU it runs in the type of its weights even under autocast: without AVX-512,
    oneDNN has no LSTM in bfloat16 or float16, and raises.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__(dim, width, batch_first=True)

    def forward(self, vectors: Tensor) -> Tensor:  # type: ignore[override]
        if vectors.device.type != "cpu":
            return super().forward(vectors)[0]
        with torch.autocast("cpu", enabled=False):
            return super().forward(vectors.to(next(self.parameters()).dtype))[0]


class WordEmbedding(nn.Module):
    """h_i = LN(word(w_i) + position(i)), B x N x D.

    The two embedding layers are those of the LBF paper; the LN is LXMERT's.

    Args:
        text: what the words are.
        width: D.
        dropout: after the norm.
        placed: with positions; else words are where attention's relative positions see them.
    """

    def __init__(self, text: TextSpec, width: int, dropout: float, placed: bool = True) -> None:
        super().__init__()
        self.word = word_layer(text, width)
        self.position = nn.Embedding(text.max_words, width) if placed else None
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: WordBatch) -> Tensor:
        states = self.word(words.tokens)
        if self.position is not None:
            positions = torch.arange(words.tokens.shape[1], device=words.tokens.device)
            states = states + self.position(positions)
        out: Tensor = self.dropout(self.norm(states))
        return out
