"""CoSMo: the text modulates what is where, then the style, of an image's normalised map.

Lee et al., "CoSMo: Content-Style Modulation for Image Retrieval with Text Feedback" (CVPR
2021), by its code, postBG/CosMo.pytorch `compositors/` and `self_attention.py`.  With x
the K places of phi_x, d wide:

    n = (x - mu(x)) / sigma(x)                                 by channel, over the places
    n <- n + w_1 A_1(n, phi_t),  n <- n + w_2 A_2(n, phi_t)               content
    phi = (s_g sigma(x) + gamma) n + (s_b mu(x) + beta)                   style
    (s_g, s_b) = sigmoid(G phi_t), (gamma, beta) = W phi_t + (1, 0)
    phi_xt = fc(mean phi), that of a target fc(mean x)

    A(n, t) = W_r( (softmax(Q n (K n)^T / sqrt d_h) + softmax(n T t / sqrt d_h)) V )
    V = W_v M [n, t];  each head of width d_h by itself, both softmaxes over the places

The maps G and W are equalised: weights of variance 1 times sqrt(2 / d).  No gradient
goes through mu and sigma of the style, as in the code.  Its map is the CNN's last; ours
is the set of regions, each mapped to d by the encoder, which the attention takes in any
order.  Two regions at least: a single one has no deviation, and its content is lost.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import WholeConfig, WholeModel, masked_mean, pooled
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

EPSILON = 1e-5


@dataclass(frozen=True)
class CoSMoConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`, whose `pool` is over the composed places too.

    Attributes:
        content_heads: of both attentions.  8 is the code's.
    """

    content_heads: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.content_heads < 1 or self.embed_dim % self.content_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of "
                f"content_heads {self.content_heads}"
            )


class CoSMo(WholeModel):
    """phi_xt by content and style; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: CoSMoConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.pool = config.pool
        self.contents = nn.ModuleList(_Content(d, config.content_heads) for _ in range(2))
        self.weights = nn.Parameter(torch.ones(2))
        self.style, self.gate = Equalised(d), Equalised(d)
        self.style.bias.data[:d] = 1
        self.fc = nn.Linear(d, d)

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        return F.normalize(self.fc(self.image(regions)), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        x, text, mask = self.image.local(regions), self.text(words), regions.mask
        mean = masked_mean(x, mask)[:, None]
        variance = masked_mean((x - mean).square(), mask)[:, None]
        n = (x - mean) / (variance + EPSILON).sqrt()
        for weight, content in zip(self.weights, self.contents, strict=True):
            n = n + weight * content(n, mask, text)
        gamma, beta = self.style(text)[:, None].chunk(2, -1)
        of_gamma, of_beta = torch.sigmoid(self.gate(text))[:, None].chunk(2, -1)
        deviation = variance.detach().sqrt()
        out = (of_gamma * deviation + gamma) * n + (of_beta * mean.detach() + beta)
        return F.normalize(self.fc(pooled(out, mask, self.pool)), dim=-1)


class _Content(nn.Module):
    """A(n, t)."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query = (nn.Linear(d, d, bias=False) for _ in range(2))
        self.asked = nn.Linear(d, d)
        self.merge = nn.Linear(2 * d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.mix = nn.Linear(d, d)

    def forward(self, n: Tensor, mask: Tensor, text: Tensor) -> Tensor:
        """n: B x K x d, mask: B x K, text: B x d; to B x K x d."""

        def split(states: Tensor) -> Tensor:
            out: Tensor = states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return out  # B, heads, K, d_h

        absent = ~mask[:, None, None]
        query, key, plain = split(self.query(n)), split(self.key(n)), split(n)
        root = plain.shape[-1] ** 0.5
        among = (query @ key.transpose(-2, -1) / root).masked_fill(absent, -torch.inf).softmax(-1)
        asked = split(self.asked(text)[:, None])  # B, heads, 1, d_h
        by_text = (asked @ plain.transpose(-2, -1) / root).masked_fill(absent, -torch.inf)
        both = torch.cat([n, text[:, None].expand_as(n)], -1)
        value = split(self.value(self.merge(both)))
        mixed = (among + by_text.softmax(-1)) @ value
        out: Tensor = self.mix(mixed.transpose(1, 2).flatten(2))
        return out


class Equalised(nn.Module):
    """d to 2d: weights of variance 1, times sqrt(2 / d) as they are used; a bias of 0 at first."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * d, d))
        self.bias = nn.Parameter(torch.zeros(2 * d))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (2 / x.shape[-1]) ** 0.5, self.bias)
