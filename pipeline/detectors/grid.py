"""No detector: a fixed grid of boxes over any network, the picture as a whole in K parts.

Over a detector's own network it answers what the boxes are worth; over
EfficientNet-Lite0 it gives real features of real photographs without a download.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cqr.errors import UserError
from cqr.pipeline import detectors
from cqr.pipeline.detectors import efficientnet
from cqr.pipeline.detectors.regional import Encoder
from cqr.pipeline.detectors.selection import Candidates, Selection

MAX_K = 1024


def backend(config: str | None, weights: Path | None, device: torch.device) -> "Grid":
    """A grid over efficientnet_lite0 (the default), or over another detector's network.

    Args:
        config: "efficientnet_lite0", "bundled", "torchvision", "detectron2", or
            the last two with one of their configs: "torchvision/CONFIG".
        weights: a file for that network; None is its own.
        device: where to run.

    Raises:
        UserError: no such network, or its weights cannot be had.
    """
    name, _, rest = (config or efficientnet.NAME).partition("/")
    encoder: Encoder
    if name == efficientnet.NAME and not rest:
        encoder = efficientnet.encoder(weights, device)
    elif name in detectors.FINDERS and name != "grid":
        encoder = detectors.backend(name, rest or None, weights, device)
    else:
        raise UserError(
            f"a grid cannot lie over {config}; choose --config {efficientnet.NAME}, bundled, "
            "torchvision/CONFIG or detectron2/CONFIG"
        )
    return Grid(encoder)


@dataclass(frozen=True)
class _Maps:
    maps: Any
    count: int
    size: tuple[int, int]


class Grid:
    """A `regional.Backend` that finds the cells of a grid, each with score 1.

    For K the grid has n x n cells, n = ceil(sqrt(K)), and the first K of them in
    the order of `cells` are taken.  So K = 18 has larger cells than K = 36 and is
    not how K = 36 begins; but the first 18 of 36 are spread over the picture.
    """

    def __init__(self, encoder: Encoder) -> None:
        inner = encoder.identity
        self.identity: dict[str, Any] = {
            "name": "grid",
            "config": "/".join(filter(None, (inner["name"], inner.get("config")))),
            "network": inner,
        }
        self.dim = encoder.dim
        self.device = encoder.device
        self.max_k = MAX_K
        self.selection = Selection(nms=(0.5,), min_score=(0.0,))  # cells do not overlap
        self.network_size = encoder.network_size
        self.resize = encoder.resize
        self.convert = getattr(encoder, "convert", None)  # see `runtimes.Convertible`
        self.in_16_bits = getattr(encoder, "in_16_bits", None)  # see `runtimes.Halvable`
        self.margin = getattr(encoder, "margin", None)
        self._encoder = encoder

    def encode(self, batch: Tensor) -> _Maps:
        height, width = batch.shape[-2:]
        return _Maps(self._encoder.encode(batch), len(batch), (width, height))

    def find(self, maps: _Maps, k: int) -> list[Candidates]:
        boxes = torch.tensor(cells(k) * (maps.size * 2), dtype=torch.float32)
        found = Candidates(boxes, torch.zeros(k, dtype=torch.int64), torch.ones(k))
        return [found] * maps.count

    def pool(self, maps: _Maps, boxes: list[Tensor]) -> Tensor:
        return self._encoder.pool(maps.maps, boxes)

    def whole(self, maps: _Maps) -> Tensor | None:
        return self._encoder.whole(maps.maps)


def cells(k: int) -> np.ndarray:
    """K x 4 boxes in the unit square: K cells of a square grid, any first few spread evenly.

    The cell nearest to the centre is first; each next one is as far as can be
    from all before it, by the distance of centres; among equals, the one with
    the least crowd around it (the sum of 1 / squared distance).  So no place is
    farther from the first m than the nearest two of the first m + 1 are from
    each other.
    """
    n = math.ceil(math.sqrt(k))
    y, x = np.divmod(np.arange(n * n), n)
    order = [int(np.hypot(x - (n - 1) / 2, y - (n - 1) / 2).argmin())]
    nearest, crowd = np.full(n * n, np.inf), np.zeros(n * n)
    while len(order) < k:
        squared = (x - x[order[-1]]) ** 2 + (y - y[order[-1]]) ** 2
        nearest = np.minimum(nearest, squared)
        crowd += 1 / np.maximum(squared, 1)
        order.append(int(np.where(nearest == nearest.max(), crowd, np.inf).argmin()))
    return np.stack((x, y, x + 1, y + 1), axis=1)[order] / n
