"""The detector that comes with this package, for generated scenes and their drawings.

One network, and weights for each kind of scene that `cqr scenes` makes (`KINDS`).

A class-agnostic Faster R-CNN over a small network, with three linear heads that
read colour, shape and size from the feature of a region (attribute heads as in
Anderson et al., "Bottom-Up and Top-Down Attention", 2018).  The heads are what
makes the features tell objects apart, and what they say is part of a region's
feature: a colour reads the same whatever shape it comes with, also in pairs that
no training has shown.  `bundled_training` trains it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from cqr.digest import sha256
from cqr.errors import UserError
from cqr.pipeline.detectors.runtimes import Convert
from cqr.pipeline.detectors.runtimes import Network as Converted
from cqr.pipeline.detectors.selection import Selection
from cqr.pipeline.detectors.torchvision import Torchvision
from cqr.pipeline.detectors.weights import fit, read, ready
from cqr.pipeline.regions import Floats

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
SIZES = ("small", "large")


@dataclass(frozen=True)
class Kind:
    """What weights are for.

    Attributes:
        weights: the file of this package.
        attributes: what each head tells apart, in the words of a scenes folder and in the order
            of its outputs.
        size: (width, height) to which every picture is resized: that of the 3D pictures.  Square
            drawings are stretched, so that one batch, and one set of batch statistics, serves both.
        anchors: sides of the boxes that proposals start from, in pixels.
        proposals: looked at in a picture, at most.
    """

    weights: Path
    attributes: Mapping[str, tuple[str, ...]]
    size: tuple[int, int]
    anchors: tuple[int, ...]
    proposals: int

    @property
    def dim(self) -> int:
        """Width of a region's feature with what the heads say."""
        return DIM + sum(map(len, self.attributes.values()))


_HERE = Path(__file__).parent.parent / "weights"

KINDS = {
    "grid": Kind(
        _HERE / "bundled.safetensors",
        {"color": COLORS, "shape": ("rectangle", "circle", "triangle"), "size": SIZES},
        (224, 168),
        (18, 30, 46, 66),
        64,
    ),
    "crowd": Kind(
        _HERE / "crowd.safetensors",
        {
            "color": COLORS,
            "shape": ("cube", "sphere", "cylinder", "cone", "pyramid", "prism", "disk"),
            "size": SIZES,
        },
        (448, 336),
        (13, 20, 30, 46),
        128,
    ),
}
"""By the layout of the scenes."""

CONFIGS = {
    "attributes": ("grid", True),
    "visual": ("grid", False),
    "crowd": ("crowd", True),
}
"""The kind of scenes, and whether a region's feature has what the heads say."""

DIM = 256
CHANNELS = 128
POOLED = 5
"""A region is pooled to POOLED x POOLED before the box head."""


class Backbone(nn.Module):
    """Pictures to one map of CHANNELS at an eighth of their size: objects are 15 to 65 pixels.

    Four stages; the last, at a sixteenth, is added to the third as in a feature pyramid.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.out_channels = CHANNELS  # FasterRCNN asks for it by this name
        self.eighth = nn.Sequential(
            _convolution(3, a, stride=2),
            _convolution(a, b, stride=2),
            Residual(b),
            _convolution(b, c, stride=2),
            Residual(c),
            Residual(c),
        )
        self.sixteenth = nn.Sequential(_convolution(c, d, stride=2), Residual(d))
        self.lateral = nn.Conv2d(c, CHANNELS, 1)
        self.top = nn.Conv2d(d, CHANNELS, 1)
        self.smooth = _convolution(CHANNELS, CHANNELS)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        fine = self.eighth(pictures)
        coarse = self.top(self.sixteenth(fine))
        enlarged = functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return {"0": self.smooth(self.lateral(fine) + enlarged)}


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Network(FasterRCNN):
    """torchvision's Faster R-CNN over `Backbone`, and `attributes`: a linear head for each.

    Its box head's output, DIM wide, is the feature of a region.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__(
            Backbone(),
            rpn_anchor_generator=AnchorGenerator((kind.anchors,), ((1.0,),)),
            box_roi_pool=MultiScaleRoIAlign(["0"], POOLED, sampling_ratio=2),
            box_head=nn.Sequential(
                nn.Flatten(),
                nn.Linear(CHANNELS * POOLED**2, DIM),
                nn.ReLU(),
                nn.Linear(DIM, DIM),
                nn.ReLU(),
            ),
            box_predictor=FastRCNNPredictor(DIM, num_classes=2),
            image_mean=[0.5] * 3,
            image_std=[0.25] * 3,
            fixed_size=kind.size,
            size_divisible=1,  # no padding
            rpn_pre_nms_top_n_train=300,
            rpn_pre_nms_top_n_test=200 * kind.proposals // 64,
            rpn_post_nms_top_n_train=100,
            rpn_post_nms_top_n_test=kind.proposals,
            rpn_batch_size_per_image=64,
            box_batch_size_per_image=32,
        )
        self.attributes = nn.ModuleDict(
            {name: nn.Linear(DIM, len(values)) for name, values in kind.attributes.items()}
        )


class Bundled(Torchvision):
    """The network as a `regional.Backend`.

    A region's feature is the box head's, DIM wide, and behind it, unless the config is
    "visual", the probability of each value of each of its kind's attributes in order.
    """

    network: Network

    def __init__(self, network: Network, device: torch.device, identity: dict[str, object]) -> None:
        super().__init__(network, device, identity)
        kind, self._said = CONFIGS[str(identity["config"])]
        self._size = KINDS[kind].size
        if self._said:
            self.dim = KINDS[kind].dim
        # Generated scenes are unambiguous: looser steps would only add boxes of nothing.
        self.selection = Selection(nms=(0.5,), min_score=(0.05,))

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        return self._size

    def convert(self, convert: Convert) -> None:
        """All that convolves; the box head, two products of matrices, is as fast in PyTorch."""
        backbone, head = self.network.backbone, self.network.rpn.head
        width, height = self._size
        maps = convert(_Map(backbone), (3, height, width))
        self.network.backbone = _MapOf(maps)
        said = convert(_Proposing(head), (CHANNELS, height // 8, width // 8))
        self.network.rpn.head = _ProposingOf(said)

    def pool(self, maps: Any, boxes: list[Tensor]) -> Tensor:
        features = self._box_features(maps, boxes)
        if not self._said:
            return features
        said = [head(features).softmax(-1) for head in self.network.attributes.values()]
        return torch.cat([features, *said], -1)


class _Map(nn.Module):
    """The backbone, of tensors alone: what a runtime converts."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        return (self.backbone(pictures)["0"],)


class _MapOf(nn.Module):
    """What was converted, as a backbone again."""

    def __init__(self, converted: Converted) -> None:
        super().__init__()
        self.converted = converted

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        return {"0": self.converted(pictures)[0]}


class _Proposing(nn.Module):
    """The head of the proposals, of tensors alone."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = self.head([maps])
        return scores[0], deltas[0]


class _ProposingOf(nn.Module):
    """What was converted, as a head again."""

    def __init__(self, converted: Converted) -> None:
        super().__init__()
        self.converted = converted

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, deltas = self.converted(maps[0])
        return [scores], [deltas]


def words(features: Floats) -> list[dict[str, str]] | None:
    """What the heads say in N x D features: the likeliest value of each attribute, in words.

    None where they say nothing, as with the config "visual".
    """
    kind = next((kind for kind in KINDS.values() if features.shape[1] == kind.dim), None)
    if kind is None:
        return None
    ends = np.cumsum([len(values) for values in kind.attributes.values()])[:-1]
    heads = np.split(features[:, DIM:], ends, axis=1)
    said = [
        [values[best] for best in head.argmax(1)]
        for values, head in zip(kind.attributes.values(), heads, strict=True)
    ]
    return [dict(zip(kind.attributes, one, strict=True)) for one in zip(*said, strict=True)]


def backend(config: str | None, weights: Path | None, device: torch.device) -> Bundled:
    """The network with the weights of this package, or those of a file.

    Raises:
        UserError: there is no such config, or the weights cannot be read.
    """
    config = config or next(iter(CONFIGS))
    if config not in CONFIGS:
        raise UserError(
            f"the bundled detector has no config {config}; choose --config from "
            f"{', '.join(CONFIGS)}"
        )
    kind = KINDS[CONFIGS[config][0]]
    path = weights or kind.weights
    network = Network(kind)
    fit(network, read(path), path, "the bundled detector")
    identity = {
        "name": "bundled",
        "config": config,
        "version": torchvision.__version__.split("+")[0],
        "weights": sha256(path),
    }
    return Bundled(ready(network, device), device, identity)
