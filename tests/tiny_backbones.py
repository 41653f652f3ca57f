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


def _save(model: torch.nn.Module, folder: Path) -> None:
    """As it is trained, weights are of all sizes: at the start many are so small that every
    picture looks the same."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(folder)  # type: ignore[operator]
