"""Losses that teach a model where a text acts: which regions to change, or to point at.

Two pictures that are alike but for what the text says tell by themselves where that is: at the
regions of the reference that the target has not.  No label is needed, but such pairs are: of two
photographs of different things nearly every region is new.  Ours.

Letters for shapes: B pairs, K and M regions.
"""

import torch
from torch import Tensor

from cqr.trainer.features import RegionBatch

LEAST = 1e-6
LOWEST = -1e4
"""A score that is as good as none, of which 0 times is 0."""


def locating(moved: Tensor, gone: Tensor) -> Tensor:
    """Where the fusion acts against where it should: a scalar, 0 or more; see `_cross_entropy`.

    Args:
        moved: B x K, the squared distance by which a text moves each region of the reference, 0
            where none is real.
        gone: B x K, as `vanished` has it.
    """
    moved = moved + LEAST
    return _cross_entropy(moved.log() - moved.sum(1, keepdim=True).log(), gone)


def pointing(scores: Tensor, gone: Tensor) -> Tensor:
    """Where a model points against where the text acts: a scalar, 0 or more; see `_cross_entropy`.

    Args:
        scores: B x K, the greater, the more it is about a region; -inf where none is real.
        gone: B x K, as `vanished` has it.
    """
    return _cross_entropy(scores.clamp_min(LOWEST).log_softmax(1), gone)


def _cross_entropy(said: Tensor, gone: Tensor) -> Tensor:
    """The mean over pairs of the cross-entropy of what vanished and of shares, by their logarithms.

    A pair of which nothing vanished, as where a text adds a thing, hardly counts: each does by the
    distance of the region that is most gone, 1 at most.
    """
    should = gone.square() / gone.square().sum(1, keepdim=True).clamp_min(LEAST)
    out: Tensor = (gone.amax(1).clamp_max(1) * -(should * said).sum(1)).mean()
    return out


@torch.no_grad()
def vanished(reference: RegionBatch, target: RegionBatch) -> Tensor:
    """B x K: how far each region of a reference is from the target's most alike; 0 where none is.

    Squared distances of features and of boxes, each in units of the pair's own, so that two of its
    regions drawn at random are 2 apart; 1 everywhere where the target has no region.
    """
    mask = torch.cat([reference.mask, target.mask], 1)
    apart = mask.new_zeros((), dtype=torch.float32)
    for one, other in (
        (reference.features.float(), target.features.float()),
        (reference.boxes, target.boxes),
    ):
        apart = apart + torch.cdist(one, other).square() / _spread(torch.cat([one, other], 1), mask)
    nearest = apart.masked_fill(~target.mask[:, None], torch.inf).amin(2)
    nearest = nearest.where(target.mask.any(1, keepdim=True), 1.0)
    return nearest.masked_fill(~reference.mask, 0)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """B x 1 x 1: the mean squared distance of two of B x K x D values."""
    real, number = mask[..., None], mask.sum(1)[:, None, None].clamp_min(1)
    mean = values.masked_fill(~real, 0).sum(1, keepdim=True) / number
    var = (values - mean).masked_fill(~real, 0).square().sum((1, 2), keepdim=True) / number
    return (2 * var).clamp_min(LEAST)
