"""Boxes over a map of tokens: what share of each token a box covers, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 1e-3
"""A box is at least so wide and high, in tokens: one without an area reads the token it is in."""

Pool = Callable[[Tensor, list[Tensor]], Tensor]
"""Features, sum(n) x D, of tokens, B x T x C, and the shares, n x T, of each picture's boxes."""


def shares(boxes: Tensor, columns: int, rows: int) -> Tensor:
    """The share of each token that each box covers, from 0 to 1.

    Args:
        boxes: n x 4, in tokens: a token is 1 x 1, the first at (0, 0).  What sticks out
            of the map is cut off; a box outside of it has the tokens nearest to it.

    Returns:
        n x (rows * columns), row by row.
    """
    x = _covered(boxes[:, 0], boxes[:, 2], columns)
    y = _covered(boxes[:, 1], boxes[:, 3], rows)
    return (y[:, :, None] * x[:, None, :]).flatten(1)


def _covered(first: Tensor, last: Tensor, number: int) -> Tensor:
    """n x number: how much of each unit interval lies between first and last."""
    first = first.clamp(0, number - LEAST)[:, None]
    last = last[:, None].clamp(max=number).maximum(first + LEAST)
    edges = torch.arange(number, device=first.device)
    return (last.minimum(edges + 1) - first.maximum(edges)).clamp(min=0)


def mean(finish: Callable[[Tensor], Tensor]) -> Pool:
    """The tokens of a box averaged, each by its share, then `finish`: n x C to n x D."""

    def pool(tokens: Tensor, covered: list[Tensor]) -> Tensor:
        each = zip(tokens, covered, strict=True)
        return finish(torch.cat([(s / s.sum(1, keepdim=True)) @ t for t, s in each]))

    return pool


@dataclass(frozen=True)
class Probe:
    """Attention of one learned query to tokens, as SigLIP pools a picture into its embedding.

    Attributes:
        project: tokens, B x T x C, to the query's logits, B x H x T, and to values,
            B x H x T x d, of H heads.
        finish: heads side by side, n x (H * d), to n x D: projection, residual, MLP.
    """

    project: Callable[[Tensor], tuple[Tensor, Tensor]]
    finish: Callable[[Tensor], Tensor]


def attention(probe: Probe) -> Pool:
    """The probe's attention to the tokens of a box, each weighted by its share.

    Over all tokens, whole, that is the model's own pooling.  The logits do not depend
    on the box, so they are computed once a picture.
    """

    def pool(tokens: Tensor, covered: list[Tensor]) -> Tensor:
        logits, values = probe.project(tokens)
        read = []
        for logit, value, share in zip(logits, values, covered, strict=True):
            # A share of 0 becomes -inf, and its token has no part.
            weights = (logit + share[:, None].log()).softmax(-1)  # n x H x T
            read.append(torch.einsum("nht,htd->nhd", weights, value).flatten(1))
        return probe.finish(torch.cat(read))

    return pool
