"""What every model offers."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.text.vocabulary import WordBatch


class Extra(NamedTuple):
    """One more thing that a model wants minimised.

    Attributes:
        weight: its factor in the sum of losses.
        value: a scalar loss of the model's own, a mean over the batch; or further
            queries and their targets, as in `Output`, for the training's loss.
    """

    weight: float
    value: Tensor | tuple[Tensor, Tensor]


class Output(NamedTuple):
    """What a training step is given.

    Attributes:
        query: B x E unit vectors, times the scale; or B x M x E of M learners, of which
            each has the training's loss, and their mean counts.
        target: the same.
        extra: by the name under which it is logged.
    """

    query: Tensor
    target: Tensor
    extra: dict[str, Extra]


class RetrievalModel(nn.Module):
    """Images and queries to unit vectors that are compared by their dot product.

    Args:
        scale: initial value of the learnable scale that multiplies both vectors
            in training (TIRG's, which starts at 4, so that logits start at 16 cos).
            None: the model is around another, which has it.
    """

    def __init__(self, scale: float | None = 4.0) -> None:
        super().__init__()
        if scale is not None:
            self.scale = nn.Parameter(torch.tensor(scale))

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images to be found."""
        raise NotImplementedError

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        raise NotImplementedError

    weighs = False
    """Whether `WordBatch.weight` is part of how it composes; else a weight is of the query."""

    answers_text = False
    """Whether a text alone is a query."""

    def encode_text(self, words: WordBatch) -> Tensor:
        """B x E unit vectors of texts without an image.

        Raises:
            ValueError: the model needs an image.
        """
        raise ValueError("this model answers no text without an image")

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """Query and target vectors, times the scale; a model may add losses of its own."""
        query, image = self.encode_query(reference, words), self.encode_image(target)
        return Output(query * self.scale, image * self.scale, {})

    @property
    def attends(self) -> bool:
        """Whether its words attend to regions, so that `attention` has something to say."""
        return False

    def attention(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x N x K: how much each word attends to each region, rows summing to 1.

        Raises:
            ValueError: the model has no such attention.
        """
        raise ValueError("this model's words do not attend to regions")
