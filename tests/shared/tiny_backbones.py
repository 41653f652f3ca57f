"""Complete models of seeded random weights, a few layers each, made where a test wants them.

They mean nothing; they are files as the libraries write them, and run in milliseconds.
"""

import json
from pathlib import Path

import torch

SIDE, PATCH, WIDTH, JOINT = 32, 8, 32, 24
"""Pixels of a picture and of a patch: 4 x 4 tokens, WIDTH wide; JOINT is the shared space's D."""

_TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}
_MEAN, _STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def tiny_clip(folder: Path, seed: int = 0, licence: str | None = "mit") -> Path:
    """A `transformers.CLIPModel` with its tokenizer and preprocessing; returns the folder.

    Every text can be tokenized: a token a byte, up to 77.
    """
    from transformers import CLIPConfig, CLIPModel

    words = save_tokenizer(folder)
    torch.manual_seed(seed)
    text = _TEXT | {"vocab_size": words, "bos_token_id": words - 2, "eos_token_id": words - 1}
    config = CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=JOINT)
    _save(CLIPModel(config), folder)
    save_preprocessing(folder)
    save_card(folder, licence)
    return folder


def tiny_siglip(folder: Path, seed: int = 0, licence: str | None = "apache-2.0") -> Path:
    """A `transformers.SiglipModel` with preprocessing; its texts are padded to 64 tokens."""
    from transformers import SiglipConfig, SiglipModel

    words = save_tokenizer(folder, context=64)
    torch.manual_seed(seed)
    text = _TEXT | {
        "vocab_size": words,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
        "max_position_embeddings": 64,
    }
    _save(SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)), folder)
    save_preprocessing(folder, squash=True)
    save_card(folder, licence)
    return folder


def tiny_dinov2(folder: Path, registers: int = 0, seed: int = 0) -> Path:
    """A `transformers.Dinov2Model`, or with registers: no text, no joint space."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    torch.manual_seed(seed)
    shape = {name: value for name, value in _VISION.items() if name != "intermediate_size"}
    if registers:
        config = Dinov2WithRegistersConfig(**shape, num_register_tokens=registers)
        _save(Dinov2WithRegistersModel(config), folder)
    else:
        _save(Dinov2Model(Dinov2Config(**shape)), folder)
    save_preprocessing(folder)
    save_card(folder, "apache-2.0")
    return folder


def save_tokenizer(folder: Path, context: int = 77) -> int:
    """CLIP's tokenizer without any merges: each byte is a token.  Returns the number of tokens."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    names = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=context
    )
    tokenizer.save_pretrained(folder)
    return len(names)


def save_preprocessing(folder: Path, squash: bool = False) -> None:
    """preprocessor_config.json, as CLIP's (shortest edge, crop) or SigLIP's (squashed)."""
    content: dict[str, object] = {
        "do_normalize": True,
        "do_resize": True,
        "image_mean": _MEAN,
        "image_std": _STD,
        "resample": 3,  # bicubic
    }
    if squash:
        content |= {"size": {"height": SIDE, "width": SIDE}}
    else:
        content |= {
            "do_center_crop": True,
            "crop_size": {"height": SIDE, "width": SIDE},
            "size": {"shortest_edge": SIDE},
        }
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def save_card(folder: Path, licence: str | None) -> None:
    """A model card that states a licence, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    stated = f"license: {licence}\n" if licence else ""
    (folder / "README.md").write_text(f"---\ntags: [test]\n{stated}---\n\n# A tiny model\n")


def tiny_open_clip(folder: Path, kind: str = "vit", seed: int = 0) -> Path:
    """An open_clip model as a folder for `local-dir:`; with its built-in tokenizer.

    Args:
        folder: to be made.
        kind: "vit"; "resnet", as RN50 but small, seeing 64 x 64; "siglip", with a ViT of
            timm that pools by attention; "pe", the same with a register that it attends to,
            seeing 160 x 160, as PE-Core does to its class token; "fastvit", as MobileCLIP.
        seed: of the weights.
    """
    import open_clip
    import safetensors.torch

    vision = {
        "vit": {"image_size": SIDE, "patch_size": PATCH, "layers": 2, "width": WIDTH},
        "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        "siglip": {"timm_model_name": _siglip_vit(), "timm_pool": "map", "timm_proj": "none"},
        "pe": {"timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": None},
        "fastvit": {"timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None},
    }[kind]
    vision |= {"head_width": 8} if kind == "vit" else {}
    vision |= (
        {"image_size": {"siglip": SIDE, "pe": 160, "fastvit": 64}.get(kind)}
        if "timm" in str(vision)
        else {}
    )
    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 1}
    config = {"embed_dim": WIDTH if kind == "siglip" else JOINT, "vision_cfg": vision}
    config |= {"text_cfg": text, "custom_text": kind in ("siglip", "pe", "fastvit")}
    preprocessing = {"mean": _MEAN, "std": _STD, "interpolation": "bicubic"}
    preprocessing["resize_mode"] = "squash" if kind == "siglip" else "shortest"
    folder.mkdir(parents=True)
    content = json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing})
    (folder / "open_clip_config.json").write_text(content)
    save_card(folder, "mit")
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    _stir(model)
    safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def tiny_timm(folder: Path, architecture: str = "vit_tiny_patch16_224", seed: int = 0) -> Path:
    """A network of timm as a folder for `local-dir:`; a ViT is 4 x 4 tokens of 32 x 32."""
    import safetensors.torch
    import timm

    arguments: dict[str, object] = {}
    if architecture.startswith(("vit_", "naflexvit_")):
        arguments = {"img_size": SIDE, "patch_size": PATCH}
        arguments |= {"embed_dim": WIDTH, "depth": 2, "num_heads": 4}
    side = SIDE if arguments else 64
    torch.manual_seed(seed)
    model = timm.create_model(architecture, num_classes=5, **arguments)
    _stir(model)
    folder.mkdir(parents=True)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    published = {
        "input_size": [3, side, side],
        "mean": _MEAN,
        "std": _STD,
        "interpolation": "bicubic",
        "crop_pct": 0.8,
        "crop_mode": "center",
        "fixed_input_size": bool(arguments),
        "num_classes": 5,
        "license": "apache-2.0",
    }
    for name in ("first_conv", "classifier"):
        published[name] = model.default_cfg.get(name)
    content = {
        "architecture": architecture,
        "num_classes": 5,
        "model_args": arguments,
        "pretrained_cfg": published,
    }
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def _siglip_vit() -> str:
    """timm has no small SigLIP: here is one, under a name that its loader finds."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def tiny_siglip_vit(num_classes: int = 0, global_pool: str = "map", **others: object) -> object:
        assert global_pool == "map"
        model = VisionTransformer(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=2,
            num_heads=4,
            class_token=False,
            global_pool=global_pool,
            num_classes=num_classes,
        )
        model.default_cfg = {"num_classes": 0}
        return model

    if not timm.is_model("tiny_siglip_vit"):
        timm.models.register_model(tiny_siglip_vit)
    return "tiny_siglip_vit"


def _save(model: torch.nn.Module, folder: Path) -> None:
    _stir(model)
    model.eval().save_pretrained(folder)  # type: ignore[operator]


def _stir(model: torch.nn.Module) -> None:
    """As it is trained, weights are of all sizes: at the start many are so small that every
    picture looks the same."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def as_cached(cache: Path, repository: str, folder: Path) -> Path:
    """A model as the hub's cache keeps it, once it was downloaded whole; returns the snapshot."""
    revision = "0" * 40
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    snapshot = root / "snapshots" / revision
    snapshot.parent.mkdir()
    snapshot.symlink_to(folder, target_is_directory=True)
    return snapshot
