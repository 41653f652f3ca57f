"""torchvision's Faster R-CNN, by the name of its architecture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from cqr.digest import sha256
from cqr.errors import UserError
from cqr.pipeline.detectors.download import Source
from cqr.pipeline.detectors.regional import interpolated
from cqr.pipeline.detectors.runtimes import sixteen
from cqr.pipeline.detectors.selection import Candidates, Selection
from cqr.pipeline.detectors.weights import fit, read, ready

CONFIGS = (
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
"""The first is the default."""


def source(config: str | None) -> Source:
    """Where torchvision's own weights (trained on COCO) are."""
    url = get_model_weights(_known(config)).DEFAULT.url
    name = url.rsplit("/", 1)[1]
    return Source(
        url,
        Path(torch.hub.get_dir()) / "checkpoints" / name,
        sha256=name.rsplit("-", 1)[1].removesuffix(".pth"),
    )


def backend(
    config: str | None, weights: Path | None, device: torch.device, **options: Any
) -> "Torchvision":
    """A network with weights from a file, or with the library's own.

    Args:
        config: one of CONFIGS; None is the first.
        weights: any number of classes will do.
        device: where to run.
        options: of `torchvision.models.detection.FasterRCNN`, for example min_size.

    Raises:
        UserError: no such architecture; the weights are absent, damaged or
            another network's; or they cannot be downloaded.
    """
    name = _known(config)
    published = source(name)
    path = weights or published.get()
    state = read(path)
    classes = state.get("roi_heads.box_predictor.cls_score.weight", torch.empty(91))
    network = get_model(
        name, weights=None, weights_backbone=None, num_classes=len(classes), **options
    )
    fit(network, state, path, name)
    weights_sha256 = sha256(path)
    if name == "fasterrcnn_resnet50_fpn" and weights_sha256.startswith(published.sha256):
        _forget_eps(network)
    identity: dict[str, Any] = {
        "name": "torchvision",
        "config": name,
        "version": torchvision.__version__.split("+")[0],
        "weights": weights_sha256,
    }
    if options:
        identity["options"] = options
    return Torchvision(ready(network, device), device, identity)


@dataclass(frozen=True)
class _Maps:
    images: ImageList  # padded to a multiple of the stride, as for one picture alone
    features: dict[str, Tensor]


class Torchvision:
    """A Faster R-CNN of torchvision as a `regional.Backend`."""

    def __init__(self, network: FasterRCNN, device: torch.device, identity: dict[str, Any]) -> None:
        self.network = network
        self.device = device
        self.identity = identity
        self.selection = Selection()
        self.dim: int = network.roi_heads.box_predictor.cls_score.in_features
        self.max_k: int = network.rpn.post_nms_top_n()
        transform = network.transform
        self._mean = torch.tensor(transform.image_mean, device=device)[:, None, None] * 255
        self._std = torch.tensor(transform.image_std, device=device)[:, None, None] * 255

    resize = staticmethod(interpolated)

    def in_16_bits(self) -> None:
        for part in (self.network.backbone, self.network.roi_heads.box_head):
            part.to(memory_format=torch.channels_last)
            part.forward = sixteen(part.forward, self.device)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        transform = self.network.transform
        scale = min(
            transform.min_size[-1] / min(width, height), transform.max_size / max(width, height)
        )
        # Rounded down as torchvision does, which would leave nothing of a very thin picture.
        return max(1, int(width * scale)), max(1, int(height * scale))

    def encode(self, batch: Tensor) -> _Maps:
        pixels = (batch - self._mean) / self._std
        transform = self.network.transform
        padded = transform.batch_images(list(pixels), size_divisible=transform.size_divisible)
        height, width = batch.shape[-2:]
        return _Maps(
            ImageList(padded, [(height, width)] * len(batch)), self.network.backbone(padded)
        )

    def find(self, maps: _Maps, k: int) -> list[Candidates]:
        heads = self.network.roi_heads
        proposals, _ = self.network.rpn(maps.images, maps.features)
        logits, deltas = heads.box_predictor(self._box_features(maps, proposals))
        boxes = heads.box_coder.decode(deltas, proposals)[:, 1:]  # column 0 is the background
        scores = logits.softmax(-1)[:, 1:]
        classes = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        each = [len(p) for p in proposals]
        return [
            Candidates(b.reshape(-1, 4), c.reshape(-1), s.reshape(-1))
            for b, c, s in zip(
                boxes.split(each), classes.split(each), scores.split(each), strict=True
            )
        ]

    def pool(self, maps: _Maps, boxes: list[Tensor]) -> Tensor:
        return self._box_features(maps, boxes)

    def whole(self, maps: _Maps) -> None:
        """It has no embedding of a picture."""

    def _box_features(self, maps: _Maps, boxes: list[Tensor]) -> Tensor:
        """What the box head makes of each box, and the box predictor reads."""
        heads = self.network.roi_heads
        pooled = heads.box_roi_pool(maps.features, boxes, maps.images.image_sizes)
        features: Tensor = heads.box_head(pooled)
        return features


def _known(config: str | None) -> str:
    name = config or CONFIGS[0]
    if name not in CONFIGS:
        raise UserError(
            f"torchvision has no Faster R-CNN named {name}; "
            f"choose --config from {', '.join(CONFIGS)}"
        )
    return name


def _forget_eps(network: nn.Module) -> None:
    """Normalise without eps, as torchvision does for these weights alone (`overwrite_eps`)."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
