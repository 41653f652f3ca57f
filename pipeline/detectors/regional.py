"""The one class that turns a backend into a detector of exactly K regions."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from cqr.errors import UserError
from cqr.pipeline.detectors import Picture
from cqr.pipeline.detectors.selection import Candidates, Selection, select
from cqr.pipeline.regions import Floats, Regions


class Encoder(Protocol):
    """A network that makes maps of pictures and features of boxes.

    Sizes are (width, height); pictures are RGB.

    Attributes:
        identity: {"name", "config", "version" of the library, "weights": sha256},
            and whatever else decides its numbers; JSON-able.
        dim: D, the width of a region's feature.
        device: where the network is.
    """

    identity: dict[str, Any]
    dim: int
    device: torch.device

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """The size at which the network sees a picture of width x height."""
        ...

    def resize(self, picture: Picture, size: tuple[int, int]) -> Tensor:
        """3 x H x W, uint8 or float32, 0 to 255, on the CPU; see `antialiased`, `interpolated`."""
        ...

    def encode(self, batch: Tensor) -> Any:
        """Feature maps, of a form that only it knows, of B x 3 x H x W float32, 0 to 255."""
        ...

    def pool(self, maps: Any, boxes: list[Tensor]) -> Tensor:
        """The features, sum(n) x D, of n x 4 boxes in network pixels for each picture."""
        ...


class Backend(Encoder, Protocol):
    """An encoder that also finds boxes.

    Attributes:
        max_k: how many regions it can give at most (the limit of its proposals).
        selection: how K of its candidates are chosen.
    """

    max_k: int
    selection: Selection

    def find(self, maps: Any, k: int) -> Sequence[Candidates]:
        """The candidates of each picture, in network pixels; a detector need not look at k."""
        ...


class RegionDetector:
    """A `cqr.pipeline.detectors.Detector` over a backend.

    The backend proposes; here K boxes are selected, pooled again as they finally
    are, together with the box of the whole picture, and scaled to the original.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.dim = backend.dim
        self.max_k = backend.max_k
        self.identity = {**backend.identity, "selection": _plain(backend.selection)}

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        return self.backend.network_size(width, height)

    def check_k(self, k: int) -> None:
        """Raise UserError unless this detector can give k regions."""
        if not 1 <= k <= self.max_k:
            name = "/".join(filter(None, (self.identity["name"], self.identity.get("config"))))
            raise UserError(f"--k must be between 1 and {self.max_k} for detector {name}, is {k}")

    @torch.inference_mode()
    def __call__(self, pictures: list[Picture], k: int) -> list[Regions]:
        """Exactly k regions for each picture.

        Raises:
            UserError: k is out of range, or the weights give features that are
                not finite.
            ValueError: the pictures differ in network size.
        """
        self.check_k(k)
        if not pictures:
            return []
        sizes = {self.network_size(p.shape[1], p.shape[0]) for p in pictures}
        if len(sizes) != 1:
            raise ValueError(f"pictures of one batch must have one network size, have {sizes}")
        (size,) = sizes
        backend = self.backend
        batch = torch.stack([backend.resize(picture, size) for picture in pictures])
        maps = backend.encode(batch.to(backend.device).float())
        found = [select(c, size, k, backend.selection) for c in backend.find(maps, k)]
        whole = torch.tensor([[0.0, 0.0, *size]])
        boxes = [torch.cat((boxes, whole)) for boxes, _ in found]
        features = backend.pool(maps, [b.to(backend.device) for b in boxes]).float().cpu()
        if not features.isfinite().all():
            raise UserError(
                f"the detector {self.identity['name']} computes features that are not finite; "
                "its weights are damaged or not meant for it: choose others with --weights"
            )
        each = features.split([len(b) for b in boxes])
        return [
            _regions(feature.numpy(), box.numpy(), scores.numpy(), size, picture, k)
            for feature, box, (_, scores), picture in zip(each, boxes, found, pictures, strict=True)
        ]


def _regions(
    features: Floats, boxes: Floats, scores: Floats, size: tuple[int, int], picture: Picture, k: int
) -> Regions:
    """Scale to the original and fill up to k rows.  The last feature and box are the whole's."""
    height, width = picture.shape[:2]
    limit = np.array([width, height, width, height], np.float32)
    # Clipped again: 500.00003 has been seen in a picture 500 pixels wide.
    boxes = np.clip(boxes * (limit / np.array([*size, *size], np.float32)), 0, limit)
    whole = features[-1]
    if len(boxes) > 1:
        features, boxes = features[:-1], boxes[:-1]
    else:  # nothing found: the whole picture is the one region, without any confidence
        boxes, scores = limit[None] * np.array([0, 0, 1, 1], np.float32), np.zeros(1, np.float32)
    count = len(boxes)
    filler = ((0, k - count), (0, 0))
    return Regions(
        features=np.pad(features, filler),
        boxes=np.pad(boxes, filler),
        scores=np.pad(scores, filler[0]),
        count=count,
        whole=whole,
        width=width,
        height=height,
    )


def antialiased(picture: Picture, size: tuple[int, int]) -> Tensor:
    """Resize by Pillow's bilinear filter, which averages when it shrinks; 3 x H x W uint8."""
    if (picture.shape[1], picture.shape[0]) != size:
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    return torch.tensor(picture).permute(2, 0, 1)


def interpolated(picture: Picture, size: tuple[int, int]) -> Tensor:
    """Resize by plain bilinear interpolation, as torchvision's detectors do; 3 x H x W float32."""
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    width, height = size
    return interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)[0]


def _plain(selection: Selection) -> dict[str, list[float]]:
    return {name: list(values) for name, values in asdict(selection).items()}
