"""What every model offers."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
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

    reference_weight = 0.0
    """How much of the reference's own vector is in what is sought with; see `query`."""

    def query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors to seek with: unit(q + w i), i the reference's own vector as an image.

        The training is of q alone, which so has to hold all of the scene: with i in it, it was
        left to i, which costs recall.  Ours, after the gate by which TIRG keeps to its reference.
        """
        composed = self.encode_query(regions, words)
        if not self.reference_weight:
            return composed
        own = regions.again(self.encode_image(regions.once))
        return F.normalize(composed + self.reference_weight * own, dim=-1)

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

    @property
    def changes(self) -> bool:
        """Whether a text changes each region by itself, so that `changed` has something to say."""
        return False

    def changed(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x K: how far the text moves each region, 0 where none is real.

        Raises:
            ValueError: the model has no state of a region that a text changes.
        """
        raise ValueError("this model's texts change no region by itself")

    @property
    def divides(self) -> bool:
        """Whether an image's vector is pooled from its regions, so that it has `shares`."""
        return False

    def shares(self, regions: RegionBatch, query: Tensor) -> Tensor:
        """B x K: what each region of an image to be found adds to its score with a query.

        They sum to the score, the dot product of the unit vectors, but for the part of what a
        model may pool beside regions (`LBFConfig.nothing`); 0 where no region is real, negative
        where a region speaks against the image.

        Args:
            query: B x E unit vectors.

        Raises:
            ValueError: an image's vector is not pooled from its regions.
        """
        raise ValueError("this model's vector of an image does not divide over its regions")


def divided(mapped: Tensor, mask: Tensor, query: Tensor, greatest: bool) -> Tensor:
    """B x K shares of scores, of vectors that are a maximum or a mean over regions.

    With the maximum each dimension of the vector is that of one region, the first where
    several are alike, and so is its part of the dot product; of a mean each region has its
    part in every dimension.

    Args:
        mapped: B x K x E, which pooled are the images' vectors.
        mask: B x K, True where a region is real.
        query: B x E unit vectors.
        greatest: whether they are pooled by the maximum.
    """
    if greatest:
        best, region = mapped.masked_fill(~mask[..., None], -torch.inf).max(1)
        parts = query * best / best.norm(dim=-1, keepdim=True)
        return torch.zeros_like(mapped[..., 0]).scatter_add(1, region, parts)
    real = mapped.masked_fill(~mask[..., None], 0)
    out: Tensor = (real @ query[..., None])[..., 0] / real.sum(1).norm(dim=-1, keepdim=True)
    return out
