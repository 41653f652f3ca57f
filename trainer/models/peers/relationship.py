"""Relationship: every pair of regions, with the text, through one map; then the mean.

Santoro et al., "A simple neural network module for relational reasoning" (NIPS
2017), as TIRG's paper (arXiv 1812.07119, 3.1) uses it: "create a set of relationship
features, each is a concatenation of the text feature phi_t and 2 local features in
the 2d feature map; this set of features is passed through a MLP and the result is
averaged to get a single feature phi_xt".

    phi_xt = W mean_{i,j} g([o_i, o_j, phi_t]) + b,    o_i = [phi_x's local feature, box_i]

Pairs, text and mean are TIRG's (`pool` = max takes the greatest instead); that o_i says
where it is, Santoro et al.'s; so is a map after the mean, here one layer.  No code of
TIRG's was published: depth and width of g are ours.  A single region's only pair is
itself with itself.  The encoders are `whole.WholeModel`'s.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import WholeConfig, WholeModel, pooled
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class RelationshipConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        hidden: width of g.  Ours.
        depth: layers of g, each with a ReLU.  Ours.
        position: whether a region says where it is.  Santoro et al.'s.
    """

    hidden: int = 256
    depth: int = 2
    position: bool = True


class Relationship(WholeModel):
    """phi_xt from pairs of regions; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: RelationshipConfig) -> None:
        super().__init__(region_dim, text, config)
        d, hidden = config.embed_dim, config.hidden
        self.position, self.pool = config.position, config.pool
        width = d + 4 * config.position
        # the first layer of g, by what it reads: its sum over i, j and t needs no copies
        self.one = nn.Linear(width, hidden, bias=False)
        self.other = nn.Linear(width, hidden, bias=False)
        self.asked = nn.Linear(d, hidden)
        layers = (nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU()) for _ in range(config.depth))
        self.rest = nn.Sequential(*list(layers)[1:])
        self.output = nn.Linear(hidden, d)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        local, mask = self.image.local(regions), regions.mask
        if self.position:
            local = torch.cat([local, regions.boxes.to(local.dtype)], -1)
        one, other = self.one(local)[:, :, None], self.other(local)[:, None]
        pairs = self.rest(F.relu(one + other + self.asked(self.text(words))[:, None, None]))
        real = mask[:, :, None] & mask[:, None]  # B, K, K
        all_ = pooled(pairs.flatten(1, 2), real.flatten(1), self.pool)
        return F.normalize(self.output(all_), dim=-1)
