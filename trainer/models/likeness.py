"""Likeness: pictures by their own vectors, centred over the gallery; nothing is trained.

For features that share no space with texts: a question is a picture, and a text is refused.
"""

import torch
from torch import Tensor

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.models.zero_shot import centred
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


class Likeness(RetrievalModel):
    """u(u(x) - mean u(x)); see `zero_shot`.

    Args:
        region_dim: D, width of a picture's vector.
        text, config: not used.
    """

    mean_image: Tensor

    def __init__(
        self, *, region_dim: int, text: TextSpec | None = None, config: object = None
    ) -> None:
        super().__init__(scale=None)
        self.register_buffer("mean_image", torch.zeros(region_dim))

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x D unit vectors of images to be found."""
        return centred(regions.own, self.mean_image)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """Raises ValueError: texts and these pictures have nothing in common."""
        raise ValueError("likeness reads no texts")
