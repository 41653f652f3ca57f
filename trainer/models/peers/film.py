"""FiLM: the text scales and shifts each channel of the image, block after block.

Perez et al., "FiLM: Visual Reasoning with a General Conditioning Layer" (AAAI 2018),
as TIRG's paper (arXiv 1812.07119, 3.1) uses it: "phi_t is used to predict modulation
features gamma^i, beta^i, where i indexes the layer [...] it performs a feature-wise
affine transformation of the image features, phi^i_xt = gamma^i . phi^i_x + beta^i".

    x_0 = local features of phi_x, by region
    r = relu(U_i x + u_i),  x <- r + relu(gamma^i * BN(V_i r) + beta^i)      i = 1 .. blocks
    (gamma, beta) = 1 + W_gamma phi_t, W_beta phi_t
    phi_xt = W pool_k x_k + b

The block is that of nashory/rtic-gcn-pytorch `model/film.py`: no affine map in the
BN, no bias in V.  There V is a 3 x 3 convolution over a feature map; regions are a
set without neighbours, so here it is a map of each region, and no region of a block
sees another.  On one region, the whole image, that convolution has its middle alone
to go by, and the two are the same.  TIRG's
FiLM modulates the layers of the CNN itself; our features are computed beforehand, so
the modulated layers follow them.  Ours: gamma around 1, and the last layer, fc's
place, without which no coordinate of phi_xt could be negative.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import WholeConfig, WholeModel, pooled
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class FiLMConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        blocks: how many modulated blocks.  Ours.
    """

    blocks: int = 2


class FiLM(WholeModel):
    """phi_xt from modulated regions; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: FiLMConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.blocks = nn.ModuleList(_Block(d) for _ in range(config.blocks))
        self.output = nn.Linear(d, d)
        self.pool = config.pool

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        states, text = self.image.local(regions), self.text(words)
        for block in self.blocks:
            states = block(states, regions.mask, text)
        return F.normalize(self.output(pooled(states, regions.mask, self.pool)), dim=-1)


class _Block(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.first = nn.Linear(d, d)
        self.second = nn.Linear(d, d, bias=False)
        self.norm = nn.BatchNorm1d(d, affine=False)
        self.modulation = nn.Linear(d, 2 * d)

    def forward(self, x: Tensor, mask: Tensor, text: Tensor) -> Tensor:
        """x: B x K x d, mask: B x K, text: B x d; to B x K x d, 0 where nothing is real."""
        kept = F.relu(self.first(x))
        inner = self.second(kept)
        real = self.norm(inner[mask])
        normed = real.new_zeros(inner.shape)
        normed[mask] = real
        gamma, beta = self.modulation(text)[:, None].chunk(2, -1)
        return (kept + F.relu((1 + gamma) * normed + beta)) * mask[..., None]
