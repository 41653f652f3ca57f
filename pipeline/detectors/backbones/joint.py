"""What a feature file says of the space that its pictures share with texts."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cqr.digest import sha256
from cqr.pipeline.detectors.backbones.source import TOKENIZERS


def describe(
    *,
    library: str,
    model: str,
    file: Path | None,
    dim: int,
    family: str,
    context: int,
    weights: Mapping[str, str],
    tokenizer: Mapping[str, str],
) -> dict[str, Any]:
    """The entry `joint` of an identity; docs/files.md says what each part is."""
    space = {
        "dim": dim,
        "family": family,
        "context": context,
        "weights": dict(weights),
        "tokenizer": dict(tokenizer),
    }
    name = hashlib.sha256(json.dumps(space, sort_keys=True).encode()).hexdigest()
    where = {"library": library, "model": model, "file": str(file) if file else None}
    return {"id": name, **where, **space}


def tokenizer(folder: Path) -> dict[str, str]:
    """sha256 of the files of the tokenizer in a folder, by name."""
    return digests(folder, [name for name in TOKENIZERS if (folder / name).is_file()])


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    """sha256 of files of a folder, by name."""
    return {name: sha256(folder / name) for name in sorted(names)}
