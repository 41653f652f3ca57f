"""What every model offers."""

import torch
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.text import WordBatch


class RetrievalModel(nn.Module):
    """Images and queries to unit vectors that are compared by their dot product.

    Args:
        scale: initial value of the learnable scale that multiplies both vectors
            in training (TIRG's, which starts at 4, so that logits start at 16 cos).
    """

    def __init__(self, scale: float = 4.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images to be found."""
        raise NotImplementedError

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        raise NotImplementedError

    def forward(
        self, reference: RegionBatch, words: WordBatch, target: RegionBatch
    ) -> tuple[Tensor, Tensor]:
        """Query and target vectors, each B x E, times the scale."""
        query, image = self.encode_query(reference, words), self.encode_image(target)
        return query * self.scale, image * self.scale
