"""detectron2's Faster R-CNN, FPN (1024-d) or C4 (2048-d), by the name of its config."""

import ast
import hashlib
import importlib.util
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cqr.digest import sha256
from cqr.errors import UserError
from cqr.pipeline.detectors import bottom_up
from cqr.pipeline.detectors.download import Source
from cqr.pipeline.detectors.regional import antialiased
from cqr.pipeline.detectors.runtimes import sixteen
from cqr.pipeline.detectors.selection import Candidates, Selection
from cqr.pipeline.detectors.weights import fit, read

DEFAULT = "COCO-Detection/faster_rcnn_R_50_FPN_3x"

_INSTALL = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def problem() -> str | None:
    """Why detectron2 cannot be used here; None if it can."""
    if importlib.util.find_spec("detectron2") is None:
        return "detectron2 is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what it uses of torch.jit ages
            importlib.import_module("detectron2.modeling")
    except (ImportError, OSError) as error:  # built for another torch, or a part is missing
        return f"detectron2 cannot be imported ({' '.join(str(error).split())[:120]})"
    return None


def source(config: str | None) -> Source:
    """Where the zoo's weights for this config are; detectron2 must be installed.

    Raises:
        UserError: the zoo has none.
    """
    name = (config or DEFAULT).removesuffix(".yaml")
    # Where detectron2 itself (its iopath) keeps what it downloaded.
    cache = Path(os.getenv("FVCORE_CACHE", "~/.torch/iopath_cache")).expanduser()
    if name == bottom_up.CONFIG:
        return Source(bottom_up.URL, cache / "models" / bottom_up.URL.rsplit("/", 1)[1])
    table = _zoo()
    if name not in table["CONFIG_PATH_TO_URL_SUFFIX"]:
        raise UserError(
            f"detectron2's model zoo has no weights for {name}; pass your own with --weights FILE"
        )
    suffix = f"{name}/{table['CONFIG_PATH_TO_URL_SUFFIX'][name]}"
    return Source(table["S3_PREFIX"] + suffix, cache / "detectron2" / suffix)


def backend(
    config: str | None, weights: Path | None, device: torch.device, **options: Any
) -> "Detectron2":
    """A network with weights from a file, or with the zoo's.

    Args:
        config: the path of a config below detectron2/model_zoo/configs, or of a
            YAML file, or `bottom_up.CONFIG`; None is DEFAULT.
        weights: as detectron2 or its zoo saves them.
        device: where to run.
        options: keys of the config with other values, for example
            **{"INPUT.MIN_SIZE_TEST": 400}.

    Raises:
        UserError: detectron2 is absent; there is no such config, or it is no
            Faster R-CNN; the weights are absent, damaged or another network's,
            or cannot be downloaded.
    """
    if reason := problem():
        raise UserError(f"{reason}; see {_INSTALL}, or choose another --detector")
    import detectron2
    from detectron2.modeling import build_model

    name = config or DEFAULT
    settings = _settings(name, options)
    fingerprint = _fingerprint(settings)
    path = weights or source(name).get()
    state = read(path)
    settings.MODEL.DEVICE = str(device)
    network = build_model(settings).eval()
    fit(network, state, path, name)
    if name == bottom_up.CONFIG:
        bottom_up.alter(network)
    identity = {
        "name": "detectron2",
        "config": name,
        "settings": fingerprint,
        "version": detectron2.__version__,
        "weights": sha256(path),
    }
    return Detectron2(network, settings, device, identity)


@dataclass(frozen=True)
class _Maps:
    images: Any  # detectron2's ImageList
    features: dict[str, Tensor]


class Detectron2:
    """A GeneralizedRCNN of detectron2 as a `regional.Backend`."""

    def __init__(
        self, network: Any, settings: Any, device: torch.device, identity: dict[str, Any]
    ) -> None:
        self.network = network
        self.device = device
        self.identity = identity
        self.selection = Selection()
        self.dim: int = self.network.roi_heads.box_predictor.cls_score.in_features
        self.max_k: int = settings.MODEL.RPN.POST_NMS_TOPK_TEST
        self._input = settings.INPUT

    resize = staticmethod(antialiased)

    def in_16_bits(self) -> None:
        self.network.to(memory_format=torch.channels_last)
        heads, backbone = self.network.roi_heads, self.network.backbone
        backbone.forward = sixteen(backbone.forward, self.device)
        if hasattr(heads, "res5"):
            heads._shared_roi_transform = sixteen(heads._shared_roi_transform, self.device)
        else:
            heads.box_head.forward = sixteen(heads.box_head.forward, self.device)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        from detectron2.data.transforms import ResizeShortestEdge

        short, longest = self._input.MIN_SIZE_TEST, self._input.MAX_SIZE_TEST
        if short == 0:  # "do not resize"
            return width, height
        new_height, new_width = ResizeShortestEdge.get_output_shape(height, width, short, longest)
        return max(1, new_width), max(1, new_height)

    def encode(self, batch: Tensor) -> _Maps:
        pixels = batch.flip(1) if self._input.FORMAT == "BGR" else batch
        images = self.network.preprocess_image([{"image": picture} for picture in pixels])
        return _Maps(images, self.network.backbone(images.tensor))

    def find(self, maps: _Maps, k: int) -> list[Candidates]:
        predictor = self.network.roi_heads.box_predictor
        proposals, _ = self.network.proposal_generator(maps.images, maps.features, None)
        features = self.pool(maps, [p.proposal_boxes.tensor for p in proposals])
        predictions = predictor(features)
        found = []
        for boxes, probabilities in zip(
            predictor.predict_boxes(predictions, proposals),
            predictor.predict_probs(predictions, proposals),
            strict=True,
        ):
            scores = probabilities[:, :-1]  # the last column is the background
            classes = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
            # n x (classes * 4), or n x 4 where one regression serves all classes.
            each = boxes.reshape(len(boxes), boxes.shape[1] // 4, 4).expand(*scores.shape, 4)
            found.append(Candidates(each.reshape(-1, 4), classes.reshape(-1), scores.reshape(-1)))
        return found

    def pool(self, maps: _Maps, boxes: list[Tensor]) -> Tensor:
        from detectron2.structures import Boxes

        heads = self.network.roi_heads
        features = [maps.features[name] for name in heads.in_features]
        wrapped = [Boxes(b) for b in boxes]
        if hasattr(heads, "res5"):  # C4: the last stage of the backbone is the head
            pooled: Tensor = heads._shared_roi_transform(features, wrapped).mean(dim=[2, 3])
        else:
            pooled = heads.box_head(heads.box_pooler(features, wrapped)).flatten(1)
        return pooled

    def whole(self, maps: _Maps) -> None:
        """It has no embedding of a picture."""


def _settings(name: str, options: dict[str, Any]) -> Any:
    """The config, checked to be a Faster R-CNN, without heads for masks and keypoints."""
    from detectron2.config import get_cfg

    if name == bottom_up.CONFIG:
        path, options = _folder() / "configs" / bottom_up.BASE, {**bottom_up.SETTINGS, **options}
    elif (path := Path(name)).suffix != ".yaml" or not path.is_file():
        path = _folder() / "configs" / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        raise UserError(
            f"detectron2 has no config {name}; give --config a name such as {DEFAULT} "
            "or the path of a YAML file"
        )
    settings = get_cfg()
    try:
        settings.merge_from_file(str(path), allow_unsafe=False)
        settings.merge_from_list([part for pair in options.items() for part in pair])
    except Exception as error:  # yaml's and yacs' many ways to refuse a file
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"cannot read the config {name} ({reason}); check --config") from error
    model = settings.MODEL
    if (
        model.META_ARCHITECTURE != "GeneralizedRCNN"
        or model.PROPOSAL_GENERATOR.NAME != "RPN"
        or model.ROI_HEADS.NAME not in ("StandardROIHeads", "Res5ROIHeads")
    ):
        raise UserError(f"the config {name} is not a Faster R-CNN; choose --config as {DEFAULT}")
    model.MASK_ON = model.KEYPOINT_ON = False
    return settings


def _fingerprint(settings: Any) -> str:
    """Tells configs of one name apart: a file can be edited, a default can change."""
    return hashlib.sha256(settings.dump().encode()).hexdigest()


def _folder() -> Path:
    spec = importlib.util.find_spec("detectron2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model_zoo"


def _zoo() -> dict[str, Any]:
    """The tables of `detectron2.model_zoo`, read from its text.

    Importing it would import pkg_resources, which setuptools no longer has.
    """
    tree = ast.parse((_folder() / "model_zoo.py").read_text(encoding="utf-8"))
    (urls,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "_ModelZooUrls"
    )
    return {
        target.id: ast.literal_eval(node.value)
        for node in urls.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
