"""Any network of timm: classifiers, DINOv2 and DINOv3, the image towers of CLIP, SigLIP, PE.

timm has no text towers, so there is no joint space, even where the image tower is from one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cqr.digest import sha256
from cqr.errors import UserError
from cqr.pipeline.detectors.backbones import joint, licence, source, trunk
from cqr.pipeline.detectors.backbones.encoder import Backbone
from cqr.pipeline.detectors.backbones.source import Request
from cqr.pipeline.detectors.backbones.view import Size, View
from cqr.pipeline.detectors.weights import ready
from cqr.typed import parsed

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for first in a folder, in its order."""


def select(names: Sequence[str]) -> list[str] | None:
    """The files of a model with its configuration."""
    weights = source.first(names, WEIGHTS)
    return ["config.json", weights] if weights and "config.json" in names else None


def encoder(request: Request) -> Backbone:
    """A network by timm's name, `hf-hub:NAME`, a folder, or an architecture and a file.

    Raises:
        UserError: the library is absent; there is no such network, or it cannot be had
            or loaded; its licence was not accepted.
    """
    library = source.library("timm", "timm")
    if request.values:
        raise UserError("timm has no option values: only CLIP has; leave it out")
    name, options, digests, card = _found(library, request)
    published = _published(library, name)
    terms = licence.stated(card, request.name, name) or published.get("license")
    terms = terms if terms != "unknown" else None
    licence.check(terms, request.name, request.accepted)
    if request.side and published.get("fixed_input_size"):
        options["img_size"] = request.side
    network = _load(library, name, options, request)
    identity: dict[str, Any] = {
        "name": "timm",
        "config": request.config,
        "version": library.__version__,
        "files": digests,
        "joint": None,
        "licence": terms,
    }
    tower = trunk.tower(network, pre_logits=True)
    return Backbone(tower, _view(library, network, request), request.device, identity)


def _found(
    library: Any, request: Request
) -> tuple[str, dict[str, Any], dict[str, str], Path | None]:
    """A name for timm's own loader and options for it, sha256 of the files, the card."""
    folder = request.folder
    if folder is None and request.weights is not None:
        if request.name not in _architectures(library):
            raise UserError(
                f"timm has no architecture {request.name}; --weights FILE needs one as --config"
            )
        if not request.weights.is_file():
            raise UserError(f"the weights file {request.weights} does not exist; check --weights")
        overlay = {"file": str(request.weights), "custom_load": False}
        digests = {request.weights.name: sha256(request.weights)}
        return request.name, {"pretrained_cfg_overlay": overlay}, digests, None
    if folder is None:
        repository = request.name
        if "/" not in repository:
            repository = _repository(library, request.name)
        folder = source.from_hub(repository, select, request.accepted)
    names = source.files(folder, select, "timm")
    return f"local-dir:{folder}", {}, joint.digests(folder, names), folder / source.CARD


def _architectures(library: Any) -> set[str]:
    return set(library.list_models()) | set(library.list_pretrained())


def _repository(library: Any, name: str) -> str:
    """Where on the hub the weights of a network of timm are."""
    if name not in _architectures(library):
        raise UserError(
            f"timm has no network {name}; give --config a name of timm.list_pretrained(), "
            "hf-hub:NAME or a folder"
        )
    config = library.models.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise UserError(
            f"timm names no weights on the hub for {name}; pass your own with --weights FILE"
        )
    owner = config.hf_hub_id
    full = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    return f"{owner}{full}" if owner.endswith("/") else owner


def _published(library: Any, name: str) -> dict[str, Any]:
    """What timm knows of a network beside its architecture."""
    if name.startswith("local-dir:"):
        path = Path(name.removeprefix("local-dir:")) / "config.json"
        try:
            content = parsed(path.read_bytes())
            settings: dict[str, Any] = content.get("pretrained_cfg", content)
            return settings
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"cannot read {path}: it is damaged; check --config") from error
    config = library.models.get_pretrained_cfg(name)
    return config.to_dict() if config is not None else {}


def _load(library: Any, name: str, options: dict[str, Any], request: Request) -> Any:
    try:
        network = library.create_model(name, pretrained=True, **options)
    except Exception as error:  # readers of hostile bytes raise whatever they meet
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"cannot load {request.name} by timm ({reason}); check --config and --weights"
        ) from error
    return ready(network, request.device)


def _view(library: Any, network: Any, request: Request) -> View:
    """From timm's configuration of the network; own keeps the shape for one of NaFlex."""
    wanted = library.data.resolve_data_config({}, model=network)
    height, width = wanted["input_size"][-2:]
    if request.side:
        height = width = request.side
    shortest, natural = None, None
    if request.own and hasattr(network, "get_patch_size") and hasattr(network, "embeds"):
        natural = _sequence(network.get_patch_size()[0], width, height)
    elif request.own and wanted["crop_mode"] == "center":
        shortest = int(min(width, height) / wanted["crop_pct"])
    elif request.own and wanted["crop_mode"] != "squash":
        raise UserError(
            f"the preprocessing of {request.name} pads pictures; leave out own: they are squashed"
        )
    return View(
        (width, height),
        tuple(wanted["mean"]),
        tuple(wanted["std"]),
        wanted["interpolation"],
        shortest,
        natural,
    )


def _sequence(patch: int, width: int, height: int) -> Callable[[int, int], Size]:
    """The size of most patches that a picture's own shape allows, as many as the square has."""
    from timm.data.naflex_transforms import get_image_size_for_seq

    tokens = (width // patch) * (height // patch)

    def natural(width: int, height: int) -> Size:
        _, (h, w) = get_image_size_for_seq((height, width), patch, tokens)
        return w, h

    return natural
