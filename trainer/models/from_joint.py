"""A model that learns what zero-shot composition lacks: its vectors are corrections.

    query = u( z + M z + W_q d )      z = zero-shot's query, d = the model's unit vector of it
    image = u( i + M i + W_i d' )     i = zero-shot's image, d' = the model's unit vector of it

M, E x E, and W_q and W_i, E x e, are 0 at first, so the training starts with zero-shot itself.
Ours.  M is what of the space itself should count more or less: two pictures of one dress lie
apart there by what nobody asks for.  That W_q and W_i are maps, and not one factor each of d and
d', has two reasons: a map turns the model's space into the joint one, so the two need not be
equally wide; and its gradient tells at once in which directions to go, where that of a factor
only says whether a random vector helps.  Nothing below W learns in the first step; from the
second on all does.

Both vectors are multiplied by the learnable scale of the model, whose square starts at the
temperature (`temperature`), since zero-shot's cosines are worth something from the beginning.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import Output, RetrievalModel
from cqr.trainer.models.zero_shot import ZeroShot
from cqr.trainer.text.vocabulary import WordBatch

TEMPERATURE = 1 / 0.07
"""CLIP's at the start of its own training (Radford et al., ICML 2021)."""


class FromJoint(RetrievalModel):
    """Zero-shot, corrected by a model.

    Args:
        model: whose vectors are e wide; its scale is the scale of both.
        embed_dim: e.
        start: what is corrected; it is not trained.
    """

    def __init__(self, model: RetrievalModel, *, embed_dim: int, start: ZeroShot) -> None:
        super().__init__(scale=None)
        self.model, self.start = model, start
        width = len(start.mean_image)
        self.to_query = nn.Linear(embed_dim, width, bias=False)
        self.to_image = nn.Linear(embed_dim, width, bias=False)
        self.metric = nn.Linear(width, width, bias=False)
        for layer in (self.to_query, self.to_image, self.metric):
            nn.init.zeros_(layer.weight)
        self.begin(TEMPERATURE)

    weighs = True
    answers_text = True

    @torch.no_grad()
    def begin(self, temperature: float) -> None:
        """Set the factor of cosines with which a training starts."""
        self.model.scale.fill_(temperature**0.5)

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images to be found."""
        return self._image(regions, self.model.encode_image(regions))

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        return self._query(regions, words, self.model.encode_query(regions, words))

    def encode_text(self, words: WordBatch) -> Tensor:
        """B x E unit vectors of texts, as no text alone is learned from: u( t + M t )."""
        text = self.start.encode_text(words)
        return F.normalize(text + self.metric(text), dim=-1)

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """Both vectors times the scale, and what the model adds to the loss."""
        out = self.model(reference, words, target)
        scale = self.model.scale
        query = self._query(reference, words, out.query / scale)
        return Output(scale * query, scale * self._image(target, out.target / scale), out.extra)

    def _image(self, regions: RegionBatch, learned: Tensor) -> Tensor:
        start = self.start.encode_image(regions)
        return F.normalize(start + self.metric(start) + self.to_image(learned), dim=-1)

    def _query(self, regions: RegionBatch, words: WordBatch, learned: Tensor) -> Tensor:
        start = self.start.encode_query(regions, words)
        return F.normalize(start + self.metric(start) + self.to_query(learned), dim=-1)

    @property
    def attends(self) -> bool:
        return self.model.attends

    @torch.no_grad()
    def attention(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x N x K: the model's."""
        return self.model.attention(regions, words)
