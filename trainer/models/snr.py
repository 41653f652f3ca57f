"""Style normalisation and restitution: take the style out of the features, put back what helps.

Jin et al., "Style Normalization and Restitution for Generalizable Person Re-identification"
(SNR, CVPR 2020), by its authors' code for classification.  Of an image with features F:

    F~ = IN(F), R = F - F~
    a  = sigmoid(W_2 relu(W_1 pool(R)))                 by channel; W_1 narrows D to D / 16
    F+ = F~ + a R, which goes on;  F- = F~ + (1 - a) R, in training only

where IN normalises each channel over an image, with a gain and a bias that are learned.  On
regions, which is ours: IN and pool are over the K real regions of an image, in place of the
places of a feature map; what F+ goes on to is the whole model, and what is compared are its
vectors: q of a query, t of its target, n of the target of another query of the batch.

    L+ = softplus(d(q+, t+) - d(q~, t~)) + softplus(d(q~, n~) - d(q+, n+))    clarification
    L- = softplus(d(q~, t~) - d(q-, t-)) + softplus(d(q-, n-) - d(q~, n~))    destruction

Both, times their weight, are added to the training's loss.  All that leads to the vectors
learns by them, which here is the model too.  F~ and F- leave no trace in a batch norm's
running statistics, since they are never seen again after the training.

The form of both is that of a third party's code for re-identification.  d is 0.5 - cos / 2
("half-cosine") or, as there, 0.5 - cos ("cosine").  Only differences of d count, so the two
differ by a factor of 2 in what softplus is given.  We could not verify the paper's d, nor its
weights.

A picture of one object is its own mean, so F~ is the bias alone: all that it shows is lost but
what the gate puts back, and the gate sees it only through R.

There is another form of the loss, in the authors' code for classification:
softplus(H(F+) - H(F~)) + softplus(H(F~) - H(F-)) with H the entropy of a classifier on the
pooled features.  It needs classes, which queries do not have; we do not have it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.choices import Distance
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import Extra, Output, RetrievalModel
from cqr.trainer.models.sharing import gathered
from cqr.trainer.models.whole import masked_mean
from cqr.trainer.text.vocabulary import WordBatch

EPSILON = 1e-5


class SNR(RetrievalModel):
    """A model that is given F+ in place of the features.

    Args:
        model: what F+ goes on to.
        region_dim: D, width of a region's feature.
        causality: weight of L+ and of L-; 0 leaves both out, and the time they take.
        distance: d.
    """

    def __init__(
        self, model: RetrievalModel, *, region_dim: int, causality: float, distance: Distance
    ) -> None:
        super().__init__(scale=None)
        self.model = model
        self.causality, self.distance = causality, distance
        self.gain = nn.Parameter(torch.ones(region_dim))
        self.bias = nn.Parameter(torch.zeros(region_dim))
        narrow = max(1, region_dim // 16)
        self.gate = nn.Sequential(
            nn.Linear(region_dim, narrow), nn.ReLU(), nn.Linear(narrow, region_dim), nn.Sigmoid()
        )

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images to be found."""
        return self.model.encode_image(self.parts(regions)[0])

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        return self.model.encode_query(self.parts(regions)[0], words)

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """The model's vectors of F+, its own losses, L+ and L-."""
        pairs = zip(self.parts(reference), self.parts(target), strict=True)
        (seen, found), *others = pairs
        out: Output = self.model(seen, words, found)
        if not self.causality:
            return out
        plain, minus = (self._in_passing(seen, words, found) for seen, found in others)
        near, far = zip(*(self._distances(one) for one in (out, plain, minus)), strict=True)
        clarification = F.softplus(near[0] - near[1]) + F.softplus(far[1] - far[0])
        destruction = F.softplus(near[1] - near[2]) + F.softplus(far[2] - far[1])
        return out._replace(
            extra=out.extra
            | {
                "clarification": Extra(self.causality, clarification.mean()),
                "destruction": Extra(self.causality, destruction.mean()),
            }
        )

    @property
    def attends(self) -> bool:
        return self.model.attends

    @torch.no_grad()
    def attention(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x N x K: the model's."""
        return self.model.attention(self.parts(regions)[0], words)

    @property
    def changes(self) -> bool:
        return self.model.changes

    @torch.no_grad()
    def changed(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x K: the model's."""
        return self.model.changed(self.parts(regions)[0], words)

    @property
    def divides(self) -> bool:
        return self.model.divides

    @torch.no_grad()
    def shares(self, regions: RegionBatch, query: Tensor) -> Tensor:
        """B x K: the model's."""
        return self.model.shares(self.parts(regions)[0], query)

    def parts(self, regions: RegionBatch) -> tuple[RegionBatch, RegionBatch, RegionBatch]:
        """The regions with F+, F~ and F- as their features, 0 where no region is real."""
        features, mask = regions.features.float(), regions.mask
        mean = masked_mean(features, mask)[:, None]
        variance = masked_mean((features - mean).square(), mask)[:, None]
        plain = self.gain * (features - mean) / (variance + EPSILON).sqrt() + self.bias
        residual = features - plain
        gate = self.gate(masked_mean(residual, mask))[:, None]
        plus, minus = plain + gate * residual, plain + (1 - gate) * residual

        def with_(part: Tensor) -> RegionBatch:
            return RegionBatch(part.masked_fill(~mask[..., None], 0), regions.boxes, mask)

        return with_(plus), with_(plain), with_(minus)

    def _in_passing(self, *given: RegionBatch | WordBatch) -> Output:
        """The model's vectors, without a trace in its running statistics."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        out: Output = torch.func.functional_call(self.model, buffers, given)
        return out

    def _distances(self, out: Output) -> tuple[Tensor, Tensor]:
        """d of each query from its target, and from another's: B and B."""
        query, target = (gathered(v).float().flatten(1) for v in (out.query, out.target))
        factor = 0.5 if self.distance == "half-cosine" else 1.0
        near, far = (F.cosine_similarity(query, t) for t in (target, target.roll(1, 0)))
        return 0.5 - factor * near, 0.5 - factor * far
