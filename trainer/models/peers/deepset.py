"""DeepSet: a map of each region with the text, pooled over the set, and a map of that.

Zaheer et al., "Deep Sets" (NIPS 2017), theorem 2: a function of a set, whatever its
order, is rho(sum_k phi(x_k)).  With a text, which is ours:

    phi_xt = rho( pool_k phi([o_k, phi_t]) ),    o_k = [phi_x's local feature, box_k]

It is Relationship without pairs: what of LBF is left when no region sees another, and
words are one vector.  phi and rho have `depth` layers each, `hidden` wide, a ReLU between;
depth and width are ours, and so is the pooling's mean or maximum in place of the sum.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import WholeConfig, WholeModel, pooled
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class DeepSetConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`, whose `pool` is over the set too.

    Attributes:
        hidden: width of phi and rho.  Ours.
        depth: layers of each.  Ours.
        position: whether a region says where it is.  Ours.
    """

    hidden: int = 512
    depth: int = 2
    position: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise ValueError(f"depth {self.depth} is less than 1")


class DeepSet(WholeModel):
    """phi_xt of the set of regions; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: DeepSetConfig) -> None:
        super().__init__(region_dim, text, config)
        d, hidden = config.embed_dim, config.hidden
        self.position, self.pool = config.position, config.pool
        self.phi = _layers([2 * d + 4 * config.position, *[hidden] * config.depth])
        self.rho = _layers([hidden] * config.depth + [d])

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        local = self.image.local(regions)
        text = self.text(words)[:, None].expand(-1, local.shape[1], -1)
        parts = [local, text.to(local.dtype)]
        if self.position:
            parts.append(regions.boxes.to(local.dtype))
        states = F.relu(self.phi(torch.cat(parts, -1)))
        return F.normalize(self.rho(pooled(states, regions.mask, self.pool)), dim=-1)


def _layers(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, next_ in pairwise(widths):
        layers += [nn.Linear(width, next_), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
