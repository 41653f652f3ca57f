"""The one class that turns a backend into a detector of exactly K regions."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from cqr.errors import UserError
from cqr.machine import moved
from cqr.pipeline.detectors import Picture
from cqr.pipeline.detectors.runtimes import FP16
from cqr.pipeline.detectors.selection import Candidates, Selection, select_each
from cqr.pipeline.images import DIVISORS, reduced
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

    def whole(self, maps: Any) -> Tensor | None:
        """The network's own embedding of each picture, B x D.

        None where it has none of that width: then the box around the whole
        picture is pooled as the others are.
        """
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


class Describer(Protocol):
    """Makes features of boxes that another network found.

    Attributes:
        identity: of the detector that it makes together with the finder of the boxes.
        dim: D.
    """

    identity: dict[str, Any]
    dim: int

    def __call__(
        self, pictures: list[Picture], boxes: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """For each picture: features, n x D, of its n x 4 boxes in its pixels; and the whole, D."""
        ...


class RegionDetector:
    """A `cqr.pipeline.detectors.Detector` over a backend.

    The backend proposes; here K boxes are selected, pooled again as they finally
    are, together with the box of the whole picture, and scaled to the original.
    With a describer, the features are that one's, of the same boxes.

    Where the backend has a `margin`, a JPEG is decoded at the smallest fraction that is still so
    many times as wide and as high as what the network sees; unless `scaled` is False.
    """

    def __init__(
        self, backend: Backend, describer: Describer | None = None, scaled: bool = True
    ) -> None:
        self.backend = backend
        self.describer = describer
        self.dim = (describer or backend).dim
        self.max_k = backend.max_k
        identity = (describer or backend).identity
        self.identity = {**identity, "selection": _plain(backend.selection)}
        self._margin = getattr(backend, "margin", None) if scaled and not describer else None
        if self._margin is not None:
            self.identity["jpeg"] = {"margin": self._margin}

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        return self.backend.network_size(width, height)

    def fraction(self, width: int, height: int) -> int:
        """At which 1/n of its size a JPEG may be decoded: see `images.Fraction`."""
        if self._margin is None:
            return 1
        seen = self.network_size(width, height)
        for divisor in DIVISORS:
            less = reduced((width, height), divisor)
            enough = all(a >= self._margin * b for a, b in zip(less, seen, strict=True))
            if enough and self.network_size(*less) == seen:
                return divisor
        return 1

    def check_k(self, k: int) -> None:
        """Raise UserError unless this detector can give k regions."""
        if not 1 <= k <= self.max_k:
            name = "/".join(filter(None, (self.identity["name"], self.identity.get("config"))))
            raise UserError(f"--k must be between 1 and {self.max_k} for detector {name}, is {k}")

    @property
    def prepare(self) -> Callable[[Picture], Tensor] | None:
        """What a picture becomes before it meets others, where another thread is better to do it:
        for a GPU, unless that resizes pictures itself.
        """
        return None if self.backend.device.type == "cpu" or self._there else self._resized

    @torch.inference_mode()
    def __call__(
        self, pictures: list[Picture], k: int, prepared: Sequence[Tensor] | None = None
    ) -> list[Regions]:
        """Exactly k regions for each picture.

        Args:
            prepared: what `prepare` made of each.

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
        if self._there:
            batch = interpolated_there(pictures, size, backend.device)
        else:
            ready = prepared or [backend.resize(picture, size) for picture in pictures]
            batch = moved(torch.stack(list(ready)), backend.device)
        maps = backend.encode(batch.float())
        found = select_each(backend.find(maps, k), size, k, backend.selection)
        in_pixels = [_scaled(b, size, p) for (b, _), p in zip(found, pictures, strict=True)]
        if self.describer:
            features, wholes = self.describer(pictures, in_pixels)
        else:
            features, wholes = self._pooled(maps, [b for b, _ in found], size)
        if not all(f.isfinite().all() for f in (*features, *wholes)):
            why = "its weights are damaged or not meant for it: choose others with --weights"
            if self.identity.get("runtime") == FP16:
                why = f"16 bits may be too few for it: leave out --runtime {FP16}"
            raise UserError(
                f"the detector {self.identity['name']} computes features that are not finite; {why}"
            )
        rows = zip(features, wholes, in_pixels, found, pictures, strict=True)
        return [
            _regions(feature.numpy(), whole.numpy(), boxes.numpy(), scores.numpy(), picture, k)
            for feature, whole, boxes, (_, scores), picture in rows
        ]

    @property
    def _there(self) -> bool:
        """Whether pictures are resized where the network is."""
        return self.backend.device.type != "cpu" and self.backend.resize is interpolated

    def _resized(self, picture: Picture) -> Tensor:
        height, width = picture.shape[:2]
        return self.backend.resize(picture, self.network_size(width, height))

    def _pooled(
        self, maps: Any, boxes: list[Tensor], size: tuple[int, int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the backend itself makes of its boxes, and of the whole pictures."""
        wholes = self.backend.whole(maps)
        if wholes is None:
            around = torch.tensor([[0.0, 0.0, *size]])
            boxes = [torch.cat((b, around)) for b in boxes]
        pooled = self.backend.pool(maps, [b.to(self.backend.device) for b in boxes])
        features = list(pooled.float().cpu().split([len(b) for b in boxes]))
        if wholes is not None:
            return features, list(wholes.float().cpu())
        return [f[:-1] for f in features], [f[-1] for f in features]


def _scaled(boxes: Tensor, size: tuple[int, int], picture: Picture) -> Tensor:
    """From network pixels to those of the original."""
    height, width = picture.shape[:2]
    limit = torch.tensor([width, height, width, height], dtype=torch.float32)
    # Clipped again: 500.00003 has been seen in a picture 500 pixels wide.
    return (boxes * (limit / torch.tensor([*size, *size]))).clamp(min=0).minimum(limit)


def _regions(
    features: Floats, whole: Floats, boxes: Floats, scores: Floats, picture: Picture, k: int
) -> Regions:
    """Fill up to k rows."""
    height, width = picture.shape[:2]
    if not len(boxes):  # the whole picture is the one region, without any confidence
        boxes, scores = np.array([[0, 0, width, height]], np.float32), np.zeros(1, np.float32)
        features = whole[None]
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
    return _bilinear(torch.tensor(picture)[None], size)[0]


def interpolated_there(
    pictures: Sequence[Picture], size: tuple[int, int], device: torch.device
) -> Tensor:
    """`interpolated` of each picture, on a device: those of one size at once; B x 3 x H x W."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        alike.setdefault(picture.shape, []).append(i)
    each: dict[int, Tensor] = {}
    for members in alike.values():
        pixels = moved(torch.from_numpy(np.stack([pictures[i] for i in members])), device)
        each |= zip(members, _bilinear(pixels, size), strict=True)
    return torch.stack([each[i] for i in range(len(pictures))])


def _bilinear(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """B x H x W x 3 to B x 3 x H x W float32 of that (width, height)."""
    width, height = size
    pixels = pictures.permute(0, 3, 1, 2).float()
    return interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)


def _plain(selection: Selection) -> dict[str, list[float]]:
    return {name: list(values) for name, values in asdict(selection).items()}
