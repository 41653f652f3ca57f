"""The first layer of every model that reads words."""

import torch
from torch import Tensor, nn

from cqr.trainer.text import PAD, TextSpec, WordBatch


class WordEmbedding(nn.Module):
    """h_i = LN(word(w_i) + position(i)), B x N x D.

    The two embedding layers are those of the LBF paper; the LN is LXMERT's.  A
    word that is a feature already goes through a linear map in place of the
    first one.

    Args:
        text: what the words are.
        width: D.
        dropout: after the norm.
    """

    def __init__(self, text: TextSpec, width: int, dropout: float) -> None:
        super().__init__()
        self.word: nn.Embedding | nn.Linear
        if text.dim is None:
            self.word = nn.Embedding(text.words, width, padding_idx=PAD)
        else:
            self.word = nn.Linear(text.dim, width)
        self.position = nn.Embedding(text.max_words, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: WordBatch) -> Tensor:
        tokens = words.tokens
        if tokens.is_floating_point():
            tokens = tokens.to(self.position.weight.dtype)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.dropout(self.norm(self.word(tokens) + self.position(positions)))
