"""How a picture is put before a network that was trained at one size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cqr.pipeline.detectors import Picture

Size = tuple[int, int]
"""(width, height)."""

MOST = 8
"""With `own`, the longer side is at most so many times the shorter; what is beyond is cropped
away anyway, and a picture of 1 x 5000 would become one of 224 x 1,120,000."""

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class View:
    """A network's input.

    Attributes:
        size: (width, height) of what the network sees, in pixels.
        mean, std: of red, green and blue, of values from 0 to 1.
        interpolation: a name of Pillow's filters, in lower case; each averages when it shrinks.
        shortest: None: the picture is squashed to `size`, so that every pixel is seen.
            Else its shorter side is made this long and the middle is cropped out, as the
            model's own preprocessing may do: what lies outside is not seen.
        natural: the size for pictures of a given size, for networks that take
            any; `size` is then that of a square.
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    shortest: int | None = None
    natural: Callable[[int, int], Size] | None = None

    def network_size(self, width: int, height: int) -> Size:
        """The (width, height) to which a picture is resized, before the crop if there is one."""
        if self.natural is not None:
            return self.natural(width, height)
        if self.shortest is None:
            return self.size
        longer = min(
            int(self.shortest * max(width, height) / min(width, height)),
            MOST * max(self.shortest, *self.size),
        )
        return (longer, self.shortest) if width > height else (self.shortest, longer)

    def resize(self, picture: Picture, size: Size) -> Tensor:
        """3 x H x W uint8."""
        if (picture.shape[1], picture.shape[0]) != size:
            resized = Image.fromarray(picture).resize(size, _FILTERS[self.interpolation])
            picture = np.asarray(resized)
        return torch.tensor(picture).permute(2, 0, 1)

    def crop(self, batch: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What is seen of B x 3 x H x W, and the (x, y) of its corner."""
        if self.shortest is None or self.natural is not None:
            return batch, (0, 0)
        height, width = batch.shape[-2:]
        x, y = round((width - self.size[0]) / 2), round((height - self.size[1]) / 2)
        return batch[..., y : y + self.size[1], x : x + self.size[0]], (x, y)

    def normalised(self, batch: Tensor) -> Tensor:
        """B x 3 x H x W, 0 to 255, as the network was trained with."""
        mean, std = (
            torch.tensor(values, device=batch.device)[:, None, None] * 255
            for values in (self.mean, self.std)
        )
        return (batch - mean) / std

    @property
    def identity(self) -> dict[str, Any]:
        fit = "natural" if self.natural else "squash" if self.shortest is None else "own"
        return {
            "width": self.size[0],
            "height": self.size[1],
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "fit": fit,
        }
