"""Attention blocks: post-norm, as in LXMERT's `modeling.py`, the closest verified kin of LBF.

Letters for shapes: B batch, N queries, M keys, D width, H heads; P of the B x N places are real.
What a block does to each state by itself, which is most of its work, it does to real ones alone.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Places:
    """Which of B x N states are real.

    Attributes:
        mask: B x N bool.
        real: P int64, the places among the B N; None where all are worked on.
    """

    mask: Tensor
    real: Tensor | None

    @classmethod
    def of(cls, mask: Tensor) -> Self:
        """All are worked on where all are real, and on a GPU, which would have to wait for P."""
        if mask.device.type != "cpu" or bool(mask.all()):
            return cls(mask, None)
        return cls(mask, mask.flatten().nonzero().flatten())

    def kept(self, states: Tensor) -> Tensor:
        """B x N x D to P x D."""
        flat = states.flatten(0, 1)
        return flat if self.real is None else flat.index_select(0, self.real)

    def padded(self, states: Tensor, fill: float | None = None) -> Tensor:
        """P x D to B x N x D, `fill` where no state is real; None: it does not matter what."""
        if self.real is None:
            out: Tensor = states.unflatten(0, self.mask.shape)
            return out if fill is None else out.masked_fill(~self.mask[..., None], fill)
        flat = states.new_full((self.mask.numel(), states.shape[-1]), fill or 0.0)
        padded: Tensor = flat.index_copy_(0, self.real, states).unflatten(0, self.mask.shape)
        return padded

    def dropout(self, states: Tensor, drop: nn.Dropout) -> Tensor:
        """P x D, of which each number is dropped as it would be among all B x N x D.

        So the numbers that a seed draws do not depend on what is left out of the work.
        """
        if self.real is None or not drop.training or not drop.p:
            out: Tensor = drop(states)
            return out
        kept = states.new_empty(*self.mask.shape, states.shape[-1]).bernoulli_(1 - drop.p)
        return states * self.kept(kept).div_(1 - drop.p)


class RelativePositions(nn.Module):
    """Keys and values of how far a state stands behind or before the one that attends to it.

    Shaw, Uszkoreit and Vaswani, "Self-Attention with Relative Position Representations", NAACL
    2018, equations 3 and 4: k_ij = W_k x_j + a^K(j - i), v_ij = W_v x_j + a^V(j - i), the same for
    all heads, and beyond `reach` as at it.

    Args:
        width: D/H.
        reach: in states, to either side.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.keys = nn.Embedding(2 * reach + 1, width)
        self.values = nn.Embedding(2 * reach + 1, width)
        for table in (self.keys, self.values):
            nn.init.xavier_uniform_(table.weight)

    def scores(self, q: Tensor) -> Tensor:
        """B x H x N x D/H to B x H x N x N: the products with these keys."""
        return torch.einsum("bhnd,nmd->bhnm", q, self.keys(self._apart(q)))

    def mixed(self, weights: Tensor) -> Tensor:
        """B x H x N x N to B x H x N x D/H: these values, mixed."""
        return torch.einsum("bhnm,nmd->bhnd", weights, self.values(self._apart(weights)))

    def _apart(self, states: Tensor) -> Tensor:
        at = torch.arange(states.shape[2], device=states.device)
        return (at - at[:, None]).clamp(-self.reach, self.reach) + self.reach


class Attention(nn.Module):
    """Multi-head attention of x over a context, with residual and LayerNorm.

    y = LN(x + W_o concat_h softmax(Q_h K_h^T / sqrt(D/H)) V_h)

    Args:
        width: D.
        heads: H.
        dropout: of the weights, and of what is added to x.
        reach: of `RelativePositions`, which only attention of states to themselves has; 0: none.

    Raises:
        ValueError: D is not a multiple of H.
    """

    def __init__(self, width: int, heads: int, dropout: float, reach: int = 0) -> None:
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
        self.relative = RelativePositions(width // heads, reach) if reach else None

    def forward(self, x: Tensor, places: Places, context: Tensor, others: Places) -> Tensor:
        """x: P x D of B x N places; context: Q x D of B x M places; to P x D."""
        q = self._split(places.padded(self.query(x)))
        k = self._split(others.padded(self.key(context)))
        v = self._split(others.padded(self.value(context)))
        drop = self.dropout.p if self.training else 0.0
        mixed = self._mixed(q, k, v, others.mask[:, None, None, :], drop)
        out = self.output(places.kept(_joined(mixed)))
        normed: Tensor = self.norm(x + places.dropout(out, self.dropout))
        return normed

    def explain(self, x: Tensor, context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives without dropout, and the weights B x H x N x M it mixed by.

        x: B x N x D; context: B x M x D; mask: B x M bool, True where real.
        """
        q, k, v = map(self._split, (self.query(x), self.key(context), self.value(context)))
        mixed, weights = self._weighed(q, k, v, mask[:, None, None, :], 0.0)
        out: Tensor = self.norm(x + self.output(_joined(mixed)))
        return out, weights

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, drop: float) -> Tensor:
        """The values, B x H x N x D/H; on a CPU in 32 bits, since PyTorch's way back is ten times
        as slow in 16.
        """
        if q.device.type == "cpu" and q.dtype.itemsize == 2:
            with torch.autocast("cpu", enabled=False):
                return self._mixed(q.float(), k.float(), v.float(), mask, drop).to(q.dtype)
        if self.relative is not None:
            return self._weighed(q, k, v, mask, drop)[0]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)

    def _weighed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, drop: float
    ) -> tuple[Tensor, Tensor]:
        """The same, with the weights B x H x N x M before dropout."""
        scores = q @ k.transpose(-2, -1)
        if self.relative is not None:
            scores = scores + self.relative.scores(q)
        weights = (scores / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
        dropped = F.dropout(weights, drop)
        mixed = dropped @ v
        if self.relative is not None:
            mixed = mixed + self.relative.mixed(dropped)
        return mixed, weights

    def _split(self, t: Tensor) -> Tensor:
        """B x N x D to B x H x N x D/H."""
        split: Tensor = t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


def _joined(mixed: Tensor) -> Tensor:
    """B x H x N x D/H to B x N x D."""
    return mixed.transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Two linear maps with a GELU between, residual and LayerNorm."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """P x D to P x D."""
        first, gelu, second, drop = self.layers
        assert isinstance(drop, nn.Dropout)
        out: Tensor = self.norm(x + places.dropout(second(gelu(first(x))), drop))
        return out


class SelfBlock(nn.Module):
    """Self-attention, then a feed-forward map: a layer of VEP and of TEP."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, reach: int = 0) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout, reach)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """B x N x D to B x N x D; what is not real has no meaning."""
        places = Places.of(mask)
        kept = places.kept(x)
        kept = self.attention(kept, places, kept, places)
        return places.padded(self.feed_forward(kept, places))


class CrossBlock(nn.Module):
    """One direction of the fusion: cross-attend, self-attend, linear."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.cross_attention = Attention(width, heads, dropout)
        self.self_attention = Attention(width, heads, dropout)
        self.linear = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
        places, others = Places.of(mask), Places.of(other_mask)
        kept = self.cross_attention(places.kept(x), places, others.kept(other), others)
        kept = self.self_attention(kept, places, kept, places)
        return places.padded(self.linear(kept, places))
