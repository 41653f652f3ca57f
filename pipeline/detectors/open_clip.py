"""The models of open_clip: its own CLIP towers, and those of timm (SigLIP, PE-Core, MobileCLIP)."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from cqr.digest import sha256
from cqr.errors import UserError
from cqr.pipeline.detectors.backbones import joint, licence, source, trunk
from cqr.pipeline.detectors.backbones.encoder import Backbone, Seen, Tower
from cqr.pipeline.detectors.backbones.source import Request
from cqr.pipeline.detectors.backbones.tokens import mean
from cqr.pipeline.detectors.backbones.values import Input
from cqr.pipeline.detectors.backbones.view import View

CONFIG = "open_clip_config.json"

WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


def select(names: Sequence[str]) -> list[str] | None:
    """The files of a model with its configuration."""
    weights = source.first(names, WEIGHTS)
    return [CONFIG, weights] if weights and CONFIG in names else None


def _only(filename: str, names: Sequence[str]) -> list[str] | None:
    """The weights of a tag: of that name, or its copy in safetensors, or any."""
    wanted = [f"{Path(filename).stem}.safetensors", filename] if filename else list(WEIGHTS)
    weights = source.first(names, wanted)
    return [weights] if weights else None


@dataclass(frozen=True)
class _Found:
    """What is to be loaded: a name for open_clip's own loader, and the files."""

    name: str
    weights: Path
    others: dict[str, str]  # sha256 of further files that decide the numbers
    card: Path | None
    tokenizer: dict[str, str]
    preprocessing: dict[str, Any]


def encoder(request: Request) -> Backbone:
    """A model by `hf-hub:NAME`, a folder, `ARCHITECTURE/TAG`, or an architecture and a file.

    Raises:
        UserError: the library is absent; the model cannot be had or loaded; its licence
            was not accepted.
    """
    library = source.library("open_clip", "open_clip_torch")
    found = _found(library, request)
    terms = licence.stated(found.card, request.name)
    licence.check(terms, request.name, request.accepted)
    network = _load(library, found, request)
    tower = _tower(library, network, request)
    weights = sha256(found.weights)
    identity: dict[str, Any] = {
        "name": "open_clip",
        "config": request.config,
        "version": library.__version__,
        "files": {found.weights.name: weights, **found.others},
        "joint": None,
        "licence": terms,
    }
    backbone = Backbone(tower, _view(network, request), request.device, identity)
    given = request.weights is not None and request.weights.is_file()
    backbone.identity["joint"] = joint.describe(
        library="open_clip",
        model=request.name,
        file=request.weights.resolve() if given and request.weights else None,
        dim=backbone.dim,
        family="clip" if network.logit_bias is None else "siglip",
        context=network.context_length,
        weights={found.weights.name: weights},
        tokenizer=found.tokenizer,
    )
    return backbone


def _found(library: Any, request: Request) -> _Found:
    if request.folder is not None:
        return _in(request.folder, source.files(request.folder, select, "open_clip"))
    architecture, _, tag = request.name.partition("/")
    if architecture not in library.list_models():
        folder = source.from_hub(request.name, select, request.accepted)
        return _in(folder, source.files(folder, select, "open_clip"))
    if request.weights is not None:
        if not request.weights.is_file():
            raise UserError(f"the weights file {request.weights} does not exist; check --weights")
        return _Found(architecture, request.weights, {}, None, {}, {})
    tags = library.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise UserError(
            f"open_clip has no weights {tag or 'of that name alone'} for {architecture}; give "
            f"--config {architecture}/TAG with a TAG of {', '.join(tags) or '(none)'}, or "
            "--weights FILE"
        )
    published = library.get_pretrained_cfg(architecture, tag)
    repository, _, filename = published.get("hf_hub", "").rpartition("/")
    if not repository:
        raise UserError(
            f"the weights {request.name} are not on the hub; fetch {published.get('url')} by hand "
            f"and pass --config {architecture} --weights FILE"
        )
    pick = partial(_only, filename)
    folder = source.from_hub(repository, pick, request.accepted)
    (weights,) = source.files(folder, pick, "open_clip")
    return _Found(
        architecture, folder / weights, {}, folder / source.CARD, joint.tokenizer(folder), published
    )


def _in(folder: Path, names: Sequence[str]) -> _Found:
    config, weights = names
    try:
        text = json.loads((folder / config).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {folder / config}; check --config") from error
    own = joint.tokenizer(folder) if text.get("hf_tokenizer_name") else {}
    return _Found(
        f"local-dir:{folder}",
        folder / weights,
        joint.digests(folder, [config]),
        folder / source.CARD,
        own,
        {},
    )


def _load(library: Any, found: _Found, request: Request) -> Any:
    """The model with all of its tensors, in float32, on its device."""
    quick = found.preprocessing.get("quick_gelu", False)
    try:
        with _quiet():
            # Without weights first: which file is read is decided here.
            network = library.create_model(
                found.name, load_weights=False, pretrained_text=False, force_quick_gelu=quick
            )
            size = request.side if not hasattr(network.visual, "trunk") else None
            if size:
                network = library.create_model(
                    found.name,
                    load_weights=False,
                    pretrained_text=False,
                    force_quick_gelu=quick,
                    force_image_size=size,
                )
            library.load_checkpoint(network, str(found.weights), weights_only=True)
            if request.side and not size:
                network.visual.set_input_size(request.side)
    except Exception as error:  # readers of hostile bytes raise whatever they meet
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"cannot load {request.name} with the weights {found.weights} ({reason}); check "
            "--config and --weights"
        ) from error
    wanted = ("mean", "std", "interpolation", "resize_mode")
    network.visual.preprocess_cfg |= {
        key: found.preprocessing[key] for key in wanted if key in found.preprocessing
    }
    return network.eval().to(request.device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip tells the root logger, and so makes it one that prints, of random weights."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers


def _view(network: Any, request: Request) -> View:
    wanted = network.visual.preprocess_cfg
    size = request.side or wanted["size"]
    height, width = (size, size) if isinstance(size, int) else size
    mode = wanted["resize_mode"]
    if request.own and mode == "longest":
        raise UserError(
            f"the preprocessing of {request.name} pads pictures; leave out own: they are squashed"
        )
    return View(
        (width, height),
        tuple(wanted["mean"]),
        tuple(wanted["std"]),
        wanted["interpolation"],
        min(width, height) if request.own and mode == "shortest" else None,
    )


# --- towers --------------------------------------------------------------------------------------


def _tower(library: Any, network: Any, request: Request) -> Tower:
    visual = network.visual
    if request.values and not hasattr(visual, "transformer"):
        raise UserError(f"{request.name} has no option values: only CLIP's ViT has; leave it out")
    if hasattr(visual, "trunk"):
        if "pool" in dict(visual.head.named_children()):
            raise UserError(
                f"{request.name} pools its map by attention of a kind that is not supported; "
                "choose another --config"
            )
        return trunk.tower(visual.trunk, pre_logits=False, after=visual.head)
    if hasattr(visual, "attnpool"):
        return _resnet(visual)
    if getattr(visual, "attn_pool", None) is not None or visual.pool_type not in ("tok", "avg"):
        raise UserError(
            f"{request.name} pools its map by learned queries (CoCa): such models are not "
            "supported; choose another --config"
        )
    return _vit(visual, request)


def _vit(visual: Any, request: Request) -> Tower:
    """Patches through the last normalisation, averaged over the box, through the projection.

    Where the model itself averages before it normalises, so does the box.
    """
    visual.output_tokens = True
    last = visual.transformer.resblocks[-1]
    into = Input(last) if request.values else None
    rows, columns = visual.grid_size

    def see(pixels: Tensor) -> Seen:
        whole, tokens = visual(pixels)
        if into:
            tokens = _itself(last, into.taken())[:, 1:]
            if not visual.final_ln_after_pool:
                tokens = visual.ln_post(tokens)
        return Seen(tokens, columns, rows, whole)

    def finish(pooled: Tensor) -> Tensor:
        if visual.final_ln_after_pool:
            pooled = visual.ln_post(pooled)
        return pooled if visual.proj is None else pooled @ visual.proj

    return Tower(see, mean(finish), "values" if into else "mean")


def _itself(block: Any, tokens: Tensor) -> Tensor:
    """A layer in which each token attends to itself alone."""
    attended = block.attn
    if not isinstance(attended, torch.nn.MultiheadAttention):
        raise UserError("the option values needs the attention of the first CLIP; leave it out")
    weight, bias = attended.in_proj_weight.chunk(3)[2], attended.in_proj_bias.chunk(3)[2]
    values = attended.out_proj(linear(block.ln_1(tokens), weight, bias))
    tokens = tokens + block.ls_1(values)
    out: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return out


def _resnet(visual: Any) -> Tower:
    """CLIP's ResNet: places of the last map, averaged, as the pool's values and projection.

    So MaskCLIP brings the map of a ResNet into the joint space; the model itself has
    no vector of a place.
    """
    pool = visual.attnpool

    def see(pixels: Tensor) -> Seen:
        taken = visual.forward_intermediates(pixels, indices=1)
        (features,) = taken["image_intermediates"]
        rows, columns = features.shape[-2:]
        return Seen(features.flatten(2).mT, columns, rows, taken["image_features"])

    return Tower(see, mean(lambda pooled: pool.c_proj(pool.v_proj(pooled))), "values")
