"""Several learners in one: each sees the regions through a mask of its own.

Kim et al., "Attention-based Ensemble for Deep Metric Learning" (ABE, ECCV 2018).  Of an
image with features S, learner m has

    B_m = L2norm( G( S * A_m(S) ) ),  A_m in (0, 1) of the shape of S

where G, all that follows the masks, is shared; the learners' vectors lie side by side.
That the mask is a sigmoid, and one layer a learner on a shared trunk, is from HORDE's code
of ABE.  On regions, which is ours: S are the features of the K regions, which the detector
has computed; the masks are of regions and channels; G is the whole model.

    A_m(S) = sigmoid( W_m relu( W S + b ) + b_m )                    K x D, by region
    loss   = 1/M sum_m metric(m) + divergence * L_div
    L_div  = mean over images and pairs of learners of
             max(0, margin - |B_p - B_q|^2)

metric(m) is the training's loss on the vectors of learner m alone, as in ABE; that it is
averaged rather than summed is ours.  L_div is the mean of that of queries and that of
targets.  Vectors are of unit length, so the hinge is 2 max(0, cos - (1 - margin / 2)): HORDE's
max(0, cos - 0.5) is a margin of 1 at twice the weight that it has here.

What is not as in HORDE's code: its trunk is a copy of the inception blocks 4a to 4e, and S a
map behind pool3; its L_div is over pairs of learners of all images of a batch, not of one
image alone, and averaged over the terms that are not 0; its weight of L_div is 0.5.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import Extra, Output, RetrievalModel
from cqr.trainer.text.vocabulary import WordBatch

TRUNK = 256
"""Width of the trunk that the masks share.  Ours."""


class Learners(RetrievalModel):
    """M learners that share a model: vectors of M times its width.

    Args:
        model: G; its vectors are E/M wide.
        region_dim: D, width of a region's feature.
        learners: M.
        divergence: weight of L_div.
        margin: of L_div, a squared distance.
    """

    def __init__(
        self,
        model: RetrievalModel,
        *,
        region_dim: int,
        learners: int,
        divergence: float,
        margin: float,
    ) -> None:
        super().__init__(scale=None)
        self.model = model
        self.learners, self.divergence, self.margin = learners, divergence, margin
        self.trunk = nn.Sequential(nn.Linear(region_dim, TRUNK), nn.ReLU())
        self.masks = nn.Linear(TRUNK, learners * region_dim)  # W_1, ..., W_M below each other

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images to be found."""
        return self._joined(self.model.encode_image(self.masked(regions)))

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        return self._joined(self.model.encode_query(self.masked(regions), self._repeated(words)))

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """B x M x E/M vectors, times the scale; the model's own losses, and L_div."""
        out = self.model(self.masked(reference), self._repeated(words), self.masked(target))
        query, found = (self._by_image(v.flatten(1)) for v in (out.query, out.target))
        extra = {name: Extra(w, self._value(value)) for name, (w, value) in out.extra.items()}
        likeness = (divergence(query, self.margin) + divergence(found, self.margin)) / 2
        return Output(query, found, extra | {"divergence": Extra(self.divergence, likeness)})

    @property
    def attends(self) -> bool:
        return self.model.attends

    @torch.no_grad()
    def attention(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x N x K: the mean of the learners' attention."""
        weights = self.model.attention(self.masked(regions), self._repeated(words))
        return self._by_image(weights).mean(1)

    @property
    def changes(self) -> bool:
        return self.model.changes

    @torch.no_grad()
    def changed(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x K: the mean over the learners."""
        moved = self.model.changed(self.masked(regions), self._repeated(words))
        return self._by_image(moved).mean(1)

    @property
    def divides(self) -> bool:
        return self.model.divides

    @torch.no_grad()
    def shares(self, regions: RegionBatch, query: Tensor) -> Tensor:
        """B x K: the sum of the learners' shares of their parts of the vectors."""
        parts = query.unflatten(-1, (self.learners, -1)).flatten(0, 1)
        shares = self.model.shares(self.masked(regions), parts)
        return self._by_image(shares).sum(1) / math.sqrt(self.learners)

    def masked(self, regions: RegionBatch) -> RegionBatch:
        """S * A_m(S) of B images as BM images, those of one image after each other."""
        features = regions.features.float()
        masks = torch.sigmoid(self.masks(self.trunk(features)))  # B, K, M D
        masks = masks.unflatten(-1, (self.learners, -1)).transpose(1, 2)  # B, M, K, D
        return RegionBatch(
            (features[:, None] * masks).flatten(0, 1),
            regions.boxes.repeat_interleave(self.learners, 0),
            regions.mask.repeat_interleave(self.learners, 0),
        )

    def _repeated(self, words: WordBatch) -> WordBatch:
        return WordBatch(
            *(t.repeat_interleave(self.learners, 0) for t in (words.tokens, words.mask))
        )

    def _value(self, value: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Of a loss of the model's own: a scalar as it is, vectors by image."""
        if isinstance(value, Tensor):
            return value
        query, found = value
        return self._by_image(query), self._by_image(found)

    def _by_image(self, rows: Tensor) -> Tensor:
        """BM x ... to B x M x ..."""
        out: Tensor = rows.unflatten(0, (-1, self.learners))
        return out

    def _joined(self, vectors: Tensor) -> Tensor:
        return self._by_image(vectors).flatten(1) / math.sqrt(self.learners)


def divergence(vectors: Tensor, margin: float) -> Tensor:
    """L_div of B x M x E/M vectors of any length but 0: a scalar."""
    unit = F.normalize(vectors.float(), dim=-1)
    p, q = torch.triu_indices(unit.shape[1], unit.shape[1], 1, device=unit.device)
    squared = (unit[:, p] - unit[:, q]).square().sum(-1)
    return F.relu(margin - squared).mean()
