"""A model that learns what zero-shot composition lacks: its vectors are corrections.

    query = u( z + W_q d )        z = zero-shot's query, d = the model's unit vector of it
    image = u( i + W_i d' )       i = zero-shot's image, d' = the model's unit vector of it

W_q and W_i, E x e, are 0 at first, so the training starts with zero-shot itself.  Ours.  That
they are maps, and not one factor each of d and d', has two reasons: a map turns the model's
space into the joint one, so the two need not be equally wide; and its gradient tells at once in
which directions to go, where that of a factor only says whether a random vector helps.  Nothing
below W learns in the first step; from the second on all does.

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
        for layer in (self.to_query, self.to_image):
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
        learned = self.to_image(self.model.encode_image(regions))
        return F.normalize(self.start.encode_image(regions) + learned, dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        learned = self.to_query(self.model.encode_query(regions, words))
        return F.normalize(self.start.encode_query(regions, words) + learned, dim=-1)

    def encode_text(self, words: WordBatch) -> Tensor:
        """B x E unit vectors of texts: zero-shot's, as no text alone is learned from."""
        return self.start.encode_text(words)

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """Both vectors times the scale, and what the model adds to the loss."""
        out = self.model(reference, words, target)
        scale = self.model.scale
        query, image = self.to_query(out.query / scale), self.to_image(out.target / scale)
        return Output(
            scale * F.normalize(self.start.encode_query(reference, words) + query, dim=-1),
            scale * F.normalize(self.start.encode_image(target) + image, dim=-1),
            out.extra,
        )

    @property
    def attends(self) -> bool:
        return self.model.attends

    @torch.no_grad()
    def attention(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x N x K: the model's."""
        return self.model.attention(regions, words)
