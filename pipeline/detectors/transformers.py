"""CLIP, SigLIP, DINOv2 and DINOv3 as `transformers` has them, BGE-VL as a plain CLIP."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cqr.errors import UserError
from cqr.pipeline.detectors.backbones import joint, licence, source
from cqr.pipeline.detectors.backbones.encoder import Backbone, Seen, Tower
from cqr.pipeline.detectors.backbones.source import Request
from cqr.pipeline.detectors.backbones.tokens import Probe, attention, mean
from cqr.pipeline.detectors.backbones.values import Input
from cqr.pipeline.detectors.backbones.view import View
from cqr.typed import parsed

INPUTS = ("preprocessor_config.json", "processor_config.json")


def select(names: Sequence[str]) -> list[str] | None:
    """The files of a model; tensors in safetensors where there are both."""
    if "config.json" not in names or not (inputs := source.first(names, INPUTS)):
        return None
    index = "model.safetensors.index.json"
    parts = [n for n in names if n.startswith("model-") and n.endswith(".safetensors")]
    if "model.safetensors" in names:
        weights = ["model.safetensors"]
    elif index in names and len(parts) == _parts(parts):
        weights = [index, *sorted(parts)]
    elif "pytorch_model.bin" in names:
        weights = ["pytorch_model.bin"]
    else:
        return None
    return ["config.json", inputs, *weights]


def _parts(names: Sequence[str]) -> int:
    """Of how many parts each is one: model-00001-of-00004.safetensors."""
    return max((int(n.split("-of-")[1].split(".")[0]) for n in names if "-of-" in n), default=-1)


def encoder(request: Request) -> Backbone:
    """A model of the hub, or of a folder as `save_pretrained` leaves it.

    Raises:
        UserError: the library is absent; the model cannot be had, or is of no family that
            is known here; its licence was not accepted.
    """
    library = source.library("transformers", "transformers")
    if request.weights is not None and request.folder is None:
        raise UserError(
            "transformers reads folders, not a file of weights; leave out --weights and pass the "
            "folder with --config"
        )
    folder = request.folder or source.from_hub(request.name, select, request.accepted)
    names = source.files(folder, select, "transformers")
    config = _read(folder / "config.json")
    family = str(config.get("model_type"))
    terms = licence.stated(folder / source.CARD, request.name, family)
    licence.check(terms, request.name, request.accepted)
    if family not in FAMILIES:
        raise UserError(
            f"{request.name} is a model of the type {family}; those of {', '.join(FAMILIES)} can "
            "be used (SigLIP2 NaFlex by --detector timm)"
        )
    class_name, build = FAMILIES[family]
    network = _load(getattr(library, class_name), folder, names).to(request.device)
    tower = build(network, request)
    digests = joint.digests(folder, names)
    identity: dict[str, Any] = {
        "name": "transformers",
        "config": request.config,
        "version": library.__version__,
        "files": digests,
        "joint": None,
        "licence": terms,
    }
    backbone = Backbone(tower, _view(folder, network, request), request.device, identity)
    if hasattr(network, "text_model"):
        backbone.identity["joint"] = joint.describe(
            library="transformers",
            model=request.name,
            file=None,
            dim=backbone.dim,
            family=family,
            context=network.config.text_config.max_position_embeddings,
            weights={n: d for n, d in digests.items() if n not in ("config.json", *INPUTS)},
            tokenizer=joint.tokenizer(folder),
        )
    return backbone


def _load(model: Any, folder: Path, names: Sequence[str]) -> Any:
    """All of its tensors, in float32, and no code from the folder."""
    try:
        with _quiet():
            network, info = model.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors="pytorch_model.bin" not in names,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # readers of hostile bytes raise whatever they meet
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"cannot read the model in {folder} ({reason}); check --config") from error
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise UserError(
            f"the weights in {folder} are not those of its config.json: {len(wrong)} tensors do "
            f"not fit ({wrong[0]}); choose another --config"
        )
    return network.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for reading a file, and no word about what a text tower lacks."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parsed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: it is damaged; check --config") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no table; check --config")
    return content


# --- what it sees --------------------------------------------------------------------------------


def _view(folder: Path, network: Any, request: Request) -> View:
    """From the model's preprocessing; the square is the one it crops or squashes to."""
    inputs = _read(folder / (INPUTS[0] if (folder / INPUTS[0]).is_file() else INPUTS[1]))
    inputs = inputs.get("image_processor", inputs)
    vision = getattr(network.config, "vision_config", network.config)
    resized = inputs.get("size", vision.image_size)
    cropped = inputs.get("crop_size", resized) if inputs.get("do_center_crop") else resized
    width, height = _sides(cropped)
    patch = vision.patch_size
    side = request.side
    if side is not None and side % patch:
        raise UserError(
            f"{request.name} has patches of {patch} x {patch} pixels: the size behind # must be a "
            f"multiple of {patch}, is {side}"
        )
    shortest = min(_sides(resized)) if inputs.get("do_center_crop") and request.own else None
    if side is not None:
        shortest = shortest and round(shortest * side / width)
        width = height = side
    return View(
        (width // patch * patch, height // patch * patch),
        tuple(inputs.get("image_mean", (0.5,) * 3)),
        tuple(inputs.get("image_std", (0.5,) * 3)),
        {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}[inputs.get("resample", 3)],
        shortest,
    )


def _sides(size: Any) -> tuple[int, int]:
    """(width, height) of what a preprocessing calls a size."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return size["shortest_edge"], size["shortest_edge"]
        return size["width"], size["height"]
    return (size, size) if isinstance(size, int) else (size[1], size[0])


# --- families ------------------------------------------------------------------------------------


def _clip(network: Any, request: Request) -> Tower:
    """Patches through the last normalisation, averaged over the box, through the projection.

    With `values`, each patch attends to itself alone in the last layer.
    """
    vision = network.vision_model
    last = vision.encoder.layers[-1]
    into = Input(last) if request.values else None

    def see(pixels: Tensor) -> Seen:
        features = _features(network.get_image_features, pixels, vision.config)
        places = _itself(last, into.taken()) if into else features[0]
        rows, columns = _rows_columns(pixels, vision.config)
        return Seen(vision.post_layernorm(places[:, 1:]), columns, rows, features[1])

    return Tower(see, mean(network.visual_projection), "values" if into else "mean")


def _siglip(network: Any, request: Request) -> Tower:
    """Patches of the box, pooled by the head that pools all of them into the embedding."""
    _no_values(request)
    vision = network.vision_model

    def see(pixels: Tensor) -> Seen:
        tokens, whole = _features(network.get_image_features, pixels, vision.config)
        rows, columns = _rows_columns(pixels, vision.config)
        return Seen(tokens, columns, rows, whole)

    return Tower(see, attention(_head(vision.head)), "attention")


def _dino(network: Any, request: Request) -> Tower:
    """Patches averaged; the embedding is the class token.  Registers belong to no place."""
    _no_values(request)
    prefix = 1 + getattr(network.config, "num_register_tokens", 0)

    def see(pixels: Tensor) -> Seen:
        out = network(pixels)
        rows, columns = _rows_columns(pixels, network.config)
        return Seen(out.last_hidden_state[:, prefix:], columns, rows, out.pooler_output)

    return Tower(see, mean(lambda pooled: pooled), "mean")


FAMILIES: dict[str, tuple[str, Callable[[Any, Request], Tower]]] = {
    "clip": ("CLIPModel", _clip),
    "metaclip_2": ("MetaClip2Model", _clip),
    "siglip": ("SiglipModel", _siglip),
    "dinov2": ("Dinov2Model", _dino),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", _dino),
    "dinov3_vit": ("DINOv3ViTModel", _dino),
}
"""By the `model_type` of a config.json: the library's class, and what it becomes here."""


def _no_values(request: Request) -> None:
    if request.values:
        raise UserError(f"{request.name} has no option values: only CLIP has; leave it out")


def _features(function: Any, pixels: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Tokens and embedding; positions are interpolated where the size is not the model's."""
    other = tuple(pixels.shape[-2:]) != (config.image_size, config.image_size)
    out = function(pixel_values=pixels, interpolate_pos_encoding=other)
    return out.last_hidden_state, out.pooler_output


def _rows_columns(pixels: Tensor, config: Any) -> tuple[int, int]:
    return pixels.shape[-2] // config.patch_size, pixels.shape[-1] // config.patch_size


def _itself(layer: Any, tokens: Tensor) -> Tensor:
    """A layer of CLIP in which each token attends to itself alone."""
    attended = layer.self_attn
    values = attended.out_proj(attended.v_proj(layer.layer_norm1(tokens)))
    tokens = tokens + values
    out: Tensor = tokens + layer.mlp(layer.layer_norm2(tokens))
    return out


def _head(head: Any) -> Probe:
    """SigLIP's pooling head in two halves."""
    attended = head.attention
    heads, width = attended.num_heads, attended.head_dim
    query, key, value = attended.in_proj_weight.chunk(3)
    query_bias, key_bias, value_bias = attended.in_proj_bias.chunk(3)

    def split(x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(-1, (heads, width)).transpose(1, 2)
        return parts

    def project(tokens: Tensor) -> tuple[Tensor, Tensor]:
        linear = torch.nn.functional.linear
        asked = split(linear(head.probe, query, query_bias)) * width**-0.5
        keys = split(linear(tokens, key, key_bias))
        return (asked @ keys.mT)[:, :, 0], split(linear(tokens, value, value_bias))

    def finish(read: Tensor) -> Tensor:
        read = attended.out_proj(read)
        out: Tensor = read + head.mlp(head.layernorm(read))
        return out

    return Probe(project, finish)
