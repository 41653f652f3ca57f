"""Attention blocks: post-norm, as in LXMERT's `modeling.py`, the closest verified kin of LBF.

Letters for shapes: B batch, N queries, M keys, D width, H heads; P of the B x N places are real.
What a block does to each state by itself, which is most of its work, it does to real ones alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_everywhere = False


@contextmanager
def everywhere() -> Iterator[None]:
    """Within it models work on all places, real or not: what they do depends on shapes alone, as
    it must where it is compiled, or is that of several models at once.
    """
    global _everywhere
    before, _everywhere = _everywhere, True
    try:
        yield
    finally:
        _everywhere = before


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
        """All are worked on where all are real, on a GPU, which would have to wait for P, and
        `everywhere`.
        """
        if _everywhere or mask.device.type != "cpu" or bool(mask.all()):
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


class Relative(nn.Module):
    """Keys and values of how one state stands to another.

    Shaw, Uszkoreit and Vaswani, "Self-Attention with Relative Position Representations", NAACL
    2018, equations 3 and 4: k_ij = W_k x_j + A^K r_ij, v_ij = W_v x_j + A^V r_ij, the same for all
    heads.  There r_ij has a 1 for how far j stands behind or before i, as of words (`steps`); it
    may be any numbers, as of boxes (`encoders.between`).

    Args:
        width: D/H.
        known: R, the numbers of r_ij.
    """

    def __init__(self, width: int, known: int) -> None:
        super().__init__()
        self.keys = nn.Embedding(known, width)
        self.values = nn.Embedding(known, width)
        for table in (self.keys, self.values):
            nn.init.xavier_uniform_(table.weight)

    def scores(self, q: Tensor, apart: Tensor) -> Tensor:
        """B x H x N x D/H to B x H x N x N: the products with these keys."""
        return torch.einsum("bhnr,bnmr->bhnm", q @ self.keys.weight.T, apart)

    def mixed(self, weights: Tensor, apart: Tensor) -> Tensor:
        """B x H x N x N to B x H x N x D/H: these values, mixed."""
        return torch.einsum("bhnm,bnmr->bhnr", weights, apart) @ self.values.weight


def steps(size: int, reach: int, device: torch.device | None = None) -> Tensor:
    """1 x N x N x (2 reach + 1) of N words: 1 at how far the second is behind the first, 0 else.

    Beyond `reach`, to either side, as at it.
    """
    at = torch.arange(size, device=device)
    apart = (at - at[:, None]).clamp(-reach, reach) + reach
    return F.one_hot(apart, 2 * reach + 1).float()[None]


class Attention(nn.Module):
    """Multi-head attention of x over a context, with residual and LayerNorm.

    y = LN(x + W_o concat_h softmax(Q_h K_h^T / sqrt(D/H)) V_h)

    Args:
        width: D.
        heads: H.
        dropout: of the weights, and of what is added to x.
        known: of `Relative`, which only attention of states to themselves has; 0: none.

    Raises:
        ValueError: D is not a multiple of H.
    """

    def __init__(self, width: int, heads: int, dropout: float, known: int = 0) -> None:
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
        self.relative = Relative(width // heads, known) if known else None

    def forward(
        self,
        x: Tensor,
        places: Places,
        context: Tensor,
        others: Places,
        apart: Tensor | None = None,
    ) -> Tensor:
        """x: P x D of B x N places; context: Q x D of B x M places; apart: B x N x M x R of
        `Relative`, or 1 x ... for all; to P x D.
        """
        q = self._split(places.padded(self.query(x)))
        k = self._split(others.padded(self.key(context)))
        v = self._split(others.padded(self.value(context)))
        drop = self.dropout.p if self.training else 0.0
        mixed = self._mixed(q, k, v, others.mask[:, None, None, :], apart, drop)
        out = self.output(places.kept(_joined(mixed)))
        normed: Tensor = self.norm(x + places.dropout(out, self.dropout))
        return normed

    def explain(
        self, x: Tensor, context: Tensor, mask: Tensor, apart: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives without dropout, and the weights B x H x N x M it mixed by.

        x: B x N x D; context: B x M x D; mask: B x M bool, True where real; apart: as there.
        """
        q, k, v = map(self._split, (self.query(x), self.key(context), self.value(context)))
        mixed, weights = self._weighed(q, k, v, mask[:, None, None, :], apart, 0.0)
        out: Tensor = self.norm(x + self.output(_joined(mixed)))
        return out, weights

    def _mixed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, apart: Tensor | None, drop: float
    ) -> Tensor:
        """The values, B x H x N x D/H; in 32 bits by `Relative`, whose numbers 16 would round, and
        on a CPU, since PyTorch's way back is ten times as slow in 16.
        """
        exact = self.relative is not None or q.device.type == "cpu"
        if exact and q.dtype.itemsize == 2:
            with torch.autocast(q.device.type, enabled=False):
                mixed = self._mixed(q.float(), k.float(), v.float(), mask, apart, drop)
                return mixed.to(q.dtype)
        if self.relative is not None:
            return self._weighed(q, k, v, mask, apart, drop)[0]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)

    def _weighed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, apart: Tensor | None, drop: float
    ) -> tuple[Tensor, Tensor]:
        """The same, with the weights B x H x N x M before dropout."""
        scores = q @ k.transpose(-2, -1)
        if self.relative is not None and apart is not None:
            scores = scores + self.relative.scores(q, apart)
        weights = (scores / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
        dropped = F.dropout(weights, drop)
        mixed = dropped @ v
        if self.relative is not None and apart is not None:
            mixed = mixed + self.relative.mixed(dropped, apart)
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

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, known: int = 0) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout, known)
        self.feed_forward = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, mask: Tensor, apart: Tensor | None = None) -> Tensor:
        """B x N x D to B x N x D; what is not real has no meaning."""
        places = Places.of(mask)
        kept = places.kept(x)
        kept = self.attention(kept, places, kept, places, apart)
        return places.padded(self.feed_forward(kept, places))


class CrossBlock(nn.Module):
    """One direction of the fusion: cross-attend, self-attend, linear."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, known: int = 0) -> None:
        super().__init__()
        self.cross_attention = Attention(width, heads, dropout)
        self.self_attention = Attention(width, heads, dropout, known)
        self.linear = FeedForward(width, hidden, dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        other: Tensor,
        other_mask: Tensor,
        apart: Tensor | None = None,
    ) -> Tensor:
        places, others = Places.of(mask), Places.of(other_mask)
        kept = self.cross_attention(places.kept(x), places, others.kept(other), others)
        kept = self.self_attention(kept, places, kept, places, apart)
        return places.padded(self.linear(kept, places))
