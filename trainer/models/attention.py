"""Attention blocks: post-norm, as in LXMERT's `modeling.py`, the closest verified kin of LBF.

Letters for shapes: B batch, N queries, M keys, D width, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention of x over a context, with residual and LayerNorm.

    y = LN(x + W_o concat_h softmax(Q_h K_h^T / sqrt(D/H)) V_h)
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """x: B x N x D; context: B x M x D; mask: B x M bool, True where real; to B x N x D."""
        q, k, v = self._project(x, context)
        drop = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask[:, None, None, :], dropout_p=drop
        )  # B, H, N, D/H
        return self._finish(x, mixed)

    def explain(self, x: Tensor, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives without dropout, and the weights B x H x N x M it mixed by."""
        q, k, v = self._project(x, context)
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)
        return self._finish(x, weights @ v), weights

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def split(t: Tensor) -> Tensor:
            out: Tensor = t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B, H, N, D/H
            return out

        return split(self.query(x)), split(self.key(context)), split(self.value(context))

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.dropout(self.output(mixed.transpose(1, 2).flatten(2))))
        return out


class FeedForward(nn.Module):
    """Two linear maps with a GELU between, residual and LayerNorm."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x + self.layers(x))
        return out


class SelfBlock(nn.Module):
    """Self-attention, then a feed-forward map: a layer of VEP and of TEP."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.feed_forward(self.attention(x, x, mask))
        return out


class CrossBlock(nn.Module):
    """One direction of the fusion: cross-attend, self-attend, linear."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.cross_attention = Attention(width, heads, dropout)
        self.self_attention = Attention(width, heads, dropout)
        self.linear = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
        x = self.cross_attention(x, other, other_mask)
        x = self.self_attention(x, x, mask)
        out: Tensor = self.linear(x)
        return out
