"""The space that pictures share with texts, as a feature file describes it, and its files here.

docs/files.md says what the entry `joint` of a detector's identity holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from cqr.digest import sha256
from cqr.errors import UserError, reason

ADDING = ("bge-vl",)
"""Parts of the names, in lower case, of models that were trained with plain sums of vectors."""

CONFIGS = ("config.json", "open_clip_config.json")


@dataclass(frozen=True)
class Joint:
    """Where a text tower is, and by what it is known.

    Attributes:
        id: equal ids are one space.
        dim: E.
        library: whose text tower it is: "transformers" or "open_clip".
        model: the library's name for it: of the hub, `ARCHITECTURE/TAG`, or an absolute folder.
        file: the weights, where they are not the model's own.
        family: what the tower is like: "clip", "siglip", ...
        context: tokens that a text has at most.
        weights, tokenizer: sha256 of each file, by name.
    """

    id: str
    dim: int
    library: str
    model: str
    file: str | None
    family: str
    context: int
    weights: Mapping[str, str]
    tokenizer: Mapping[str, str]

    @classmethod
    def of(cls, detector: Mapping[str, Any]) -> "Joint | None":
        """That of a detector's identity; None where its pictures share no space with texts.

        Raises:
            UserError: what is said of it is not whole.
        """
        said = detector.get("joint")
        if said is None:
            return None
        try:
            return cls(**{field.name: said[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the features do not say all of their joint space ({error} is missing): extract "
                "them again"
            ) from error

    def moved_to(self, name: str) -> Self:
        """The same space, its files to be found there: a folder, a name, or a file of weights."""
        if name == self.name:
            return self
        if Path(name).expanduser().is_file():
            return replace(self, file=str(Path(name).expanduser().resolve()))
        return replace(self, model=name, file=None)

    @property
    def adds(self) -> bool:
        """Whether the model was trained to have its vectors added as they are."""
        return any(name in self.model.lower() for name in ADDING)

    @property
    def name(self) -> str:
        """As it is told to the user."""
        return self.file or self.model


def folder_of(joint: Joint, repository: str) -> Path:
    """The folder of a model's files: the one that is named, or the hub's, downloaded if need be.

    Args:
        repository: `joint.model`, or where the hub keeps what it stands for.

    Raises:
        UserError: there is no such folder, and the hub has none or cannot be reached.
    """
    path = Path(repository).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or repository.startswith((".", "~")):
        raise UserError(
            f"the text tower of these features is not in {repository} any longer: bring it back, "
            "or name the folder where it lies now with --text-encoder"
        )
    from huggingface_hub import snapshot_download

    wanted = [*joint.weights, *joint.tokenizer, *CONFIGS]
    try:
        found = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=True))
        if all((found / name).is_file() for name in joint.weights):
            return found
    except Exception:  # whatever the client says of a cache without it
        pass
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # of the hub's client, and of what it is made of
        raise UserError(
            f"the text tower {joint.name} is not on this machine and cannot be had from the "
            f"Hugging Face hub ({reason(error)}): name a folder that has it with --text-encoder"
        ) from error


def check(joint: Joint, files: Mapping[str, Path], wanted: Mapping[str, str]) -> None:
    """Hold files against what the features were made with.

    Args:
        files: by the names in `wanted`.
        wanted: sha256.

    Raises:
        UserError: one is missing or another.
    """
    for name, digest in wanted.items():
        if not files[name].is_file():
            raise UserError(
                f"the text tower {joint.name} lacks {files[name]}: bring it back, or name the "
                "folder where it lies now with --text-encoder"
            )
        if sha256(files[name]) != digest:
            raise UserError(
                f"the text tower {joint.name} is not the one that the features were made with "
                f"({files[name]} differs): bring that one back, name the folder where it lies "
                "with --text-encoder, or extract the pictures again"
            )
