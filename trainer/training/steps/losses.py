"""Losses over a batch of B query vectors and their B target vectors.

Vo et al., "Composing Text and Image for Image Retrieval" (TIRG, CVPR 2019),
equations 4 to 6, which LBF names as its own.  kappa is the similarity: the dot
product, or minus the squared Euclidean distance.

`alike`, B x 2 numbers (see `batches.Batch`), says which targets are right for one another's
queries: they are no negatives.  None, as in the paper, is that every other target is one.  Ours.
"""

from typing import Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.trainer.choices import Kappa


def similarities(queries: Tensor, targets: Tensor, kappa: Kappa = "dot") -> Tensor:
    """B x B: kappa(psi_i, phi_j) of query i and target j.

    Raises:
        ValueError: an unknown kappa.
    """
    if kappa not in get_args(Kappa):
        raise ValueError(f"kappa {kappa!r} is not one of {', '.join(get_args(Kappa))}")
    dot = queries @ targets.mT
    if kappa == "dot":
        return dot
    return 2 * dot - queries.square().sum(1)[:, None] - targets.square().sum(1)[None]


def negatives_of(size: int, alike: Tensor | None, device: torch.device) -> Tensor:
    """B x B: whether target j is a negative of query i."""
    numbers = torch.arange(size, device=device)[:, None] if alike is None else alike
    return (numbers[:, None] != numbers[None]).all(-1)


def batch_classification(
    queries: Tensor, targets: Tensor, kappa: Kappa = "dot", alike: Tensor | None = None
) -> Tensor:
    """Each query against every target of the batch: equation 4 with K = B, M = 1.

    L = 1/B sum_i -log( exp k(psi_i, phi_i) / sum_j exp k(psi_i, phi_j) )
    """
    scores = similarities(queries, targets, kappa)
    own = torch.arange(len(scores), device=scores.device)
    if alike is not None:
        negative = negatives_of(len(scores), alike, scores.device)
        scores = scores.masked_fill(~negative & (own[:, None] != own), -torch.inf)
    return F.cross_entropy(scores, own)


def soft_triplet(
    queries: Tensor, targets: Tensor, kappa: Kappa = "dot", alike: Tensor | None = None
) -> Tensor:
    """Each query against each other target, one by one: equation 6, K = 2, M = B - 1.

    L = 1/(M B) sum_i sum_m log(1 + exp( k(psi_i, phi-_m) - k(psi_i, phi+_i) ))

    Raises:
        ValueError: a batch of one has no negative.
    """
    size = len(queries)
    if size < 2:
        raise ValueError("the soft triplet loss needs a batch of two or more")
    scores = similarities(queries, targets, kappa)
    margins = scores - scores.diagonal()[:, None]
    others = negatives_of(size, alike, scores.device)
    return F.softplus(margins).where(others, 0).sum() / others.sum().clamp(min=1)


def soft_triplet_sampled(
    queries: Tensor, targets: Tensor, negatives: int = 3, alike: Tensor | None = None
) -> Tensor:
    """The variant in TIRG's released code: 6B triplets by squared distance.

    Queries and targets are one set of 2B anchors; the positive of an anchor is
    its counterpart, its negatives are `negatives` vectors drawn, without
    repetition, from all of the other pairs, of both kinds.

    The loss is TIRG's; its gradient is twice that of TIRG's code, whose own backward pass
    leaves out the 2 of a squared distance.  A learning rate of TIRG's is to be halved.

    Raises:
        ValueError: a batch of one has no negative.
    """
    size = len(queries)
    if size < 2:
        raise ValueError("the soft triplet loss needs a batch of two or more")
    vectors = torch.cat([queries, targets])
    scores = similarities(vectors, vectors, "squared-l2")
    other = negatives_of(size, alike, scores.device).repeat(2, 2)
    lottery = torch.rand(other.shape, device=scores.device).masked_fill(~other, -1)
    drawn = lottery.topk(min(negatives, 2 * size - 2), dim=1).indices
    positive = scores.gather(
        1, (torch.arange(2 * size, device=scores.device) + size)[:, None] % (2 * size)
    )
    real = other.gather(1, drawn)  # where few targets are wrong, others were drawn as well
    each = F.softplus(scores.gather(1, drawn) - positive)
    return each.where(real, 0).sum() / real.sum().clamp(min=1)


class OfBatch(Protocol):
    """A loss of B x E queries and their B x E targets."""

    def __call__(
        self, queries: Tensor, targets: Tensor, kappa: Kappa, alike: Tensor | None = None, /
    ) -> Tensor: ...


LOSSES: dict[str, OfBatch] = {
    "batch-classification": batch_classification,
    "soft-triplet": soft_triplet,
    "soft-triplet-sampled": lambda queries, targets, _, alike=None: soft_triplet_sampled(
        queries, targets, alike=alike
    ),
}
