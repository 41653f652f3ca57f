"""Which model is meant, and where its files are: a folder, the hub's cache, or the hub."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cqr.errors import UserError
from cqr.pipeline.detectors import download
from cqr.pipeline.detectors.backbones import licence

CARD = "README.md"

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.model",
    "tokenizer.model",
)
"""What the libraries call the files of a tokenizer."""

Select = Callable[[Sequence[str]], list[str] | None]
"""Of a folder's files, by name, those that the model is made of; None if it is not whole."""


@dataclass(frozen=True)
class Request:
    """A model as the user asked for it.

    Attributes:
        config: as it goes into the identity: a folder is absolute, the options behind it.
        name: without the options.
        side: pixels of the square to which a picture is squashed; None: the model's.
        own: use the model's own preprocessing instead.
        values: pool the values of the last layer (MaskCLIP) instead of its outputs.
        weights: a file or folder in place of the model's own; None: its own.
        device: where to run.
        accepted: the user accepts whatever licence the model is under.
    """

    config: str
    name: str
    side: int | None
    own: bool
    values: bool
    weights: Path | None
    device: torch.device
    accepted: bool

    @property
    def folder(self) -> Path | None:
        """The folder that is meant, if it is one."""
        if self.weights is not None and self.weights.is_dir():
            return self.weights  # where the model lies now
        return Path(self.name) if Path(self.name).is_absolute() else None


def parse(
    config: str, weights: Path | None, device: torch.device, accepted: bool = False
) -> Request:
    """Read `NAME#OPTION,OPTION`: options are `own`, `values` and a number of pixels.

    Raises:
        UserError: an option that there is not; a folder that there is not.
    """
    name, mark, words = config.rpartition("#")
    if not mark or Path(config).is_dir():
        name, words = config, ""
    for prefix in ("hf-hub:", "hf_hub:"):
        name = name.removeprefix(prefix)
    local = name.removeprefix("local-dir:")
    if Path(local).expanduser().is_dir():
        name = str(Path(local).expanduser().resolve())
    elif _a_path(name) and not (weights and weights.is_dir()):
        raise UserError(f"the folder {local} does not exist; check --config")
    options = [word.strip() for word in words.split(",") if word.strip()]
    sides = [int(word) for word in options if word.isdecimal()]
    unknown = {word for word in options if not word.isdecimal()} - {"own", "values"}
    if unknown or len(sides) > 1 or 0 in sides:
        raise UserError(
            f"--config {config} has the option {min(unknown, default=words)}; behind # may stand "
            "own, values and one number of pixels, as in NAME#values,448"
        )
    return Request(
        config="#".join(filter(None, (name, words))),
        name=name.removeprefix("local-dir:"),
        side=sides[0] if sides else None,
        own="own" in options,
        values="values" in options,
        weights=weights,
        device=device,
        accepted=accepted,
    )


def _a_path(name: str) -> bool:
    """Whether it can only mean a folder."""
    return name.startswith(("local-dir:", "/", ".", "~"))


def files(folder: Path, select: Select, what: str) -> list[str]:
    """What `select` picks of a folder of the user's.

    Raises:
        UserError: the model is not whole.
    """
    chosen = select(sorted(path.name for path in folder.iterdir() if path.is_file()))
    if chosen is None:
        raise UserError(f"the folder {folder} holds no whole model of {what}; check --config")
    return chosen


def cached(repository: str, select: Select) -> Path | None:
    """The folder of a model in the hub's cache, if it is there whole.  Asks no network."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return folder if select(names) is not None else None


def address(repository: str) -> str:
    """Where the hub shows a model."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


def offline() -> bool:
    """Whether the user forbade the hub: HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def from_hub(repository: str, select: Select, accepted: bool) -> Path:
    """The folder of a model of the hub, from its cache or downloaded into it.

    The card comes first: nothing is downloaded under a licence that was not accepted.

    Raises:
        UserError: it cannot be had, or its licence was not accepted.
    """
    found = cached(repository, select)
    if found is not None:
        return found
    url = address(repository)
    by_hand = f"download its files from {url} into a folder and pass that with --config FOLDER"
    if offline():
        raise UserError(
            f"{repository} is not in the cache, and HF_HUB_OFFLINE forbids to ask {url}; unset "
            f"it, or {by_hand}"
        )
    if not download.reachable(url, seconds=10):
        raise UserError(f"cannot reach {url} to download the model; {by_hand}")
    return _downloaded(repository, select, accepted, by_hand)


def _downloaded(repository: str, select: Select, accepted: bool, by_hand: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    url = address(repository)
    try:
        names = huggingface_hub.HfApi().list_repo_files(repository)
        card = Path(huggingface_hub.hf_hub_download(repository, CARD)) if CARD in names else None
        licence.check(licence.stated(card, repository), repository, accepted, url)
        chosen = select(names)
        if chosen is None:
            raise UserError(f"{url} holds no whole model of this kind; choose another --config")
        keep = [*chosen, *({CARD, *TOKENIZERS} & set(names))]
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=keep))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"cannot download {url} ({reason}); {by_hand}") from error


def first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` that there is."""
    return next((name for name in wanted if name in names), None)


def library(name: str, package: str) -> Any:
    """Import a library of the extra `vision`.

    Raises:
        UserError: it is not installed, or is broken.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"--detector {name} needs {package} ({' '.join(str(error).split())[:80]}): "
            "pip install 'cqr[vision]'"
        ) from error
