"""CSS as `cqr scenes` generates it.

TIRG's protocol: the gallery is every image of the test split, the reference is
removed, and any image of the same scene as the target is correct.  The pictures
are our own; figures on them do not compare with the paper's.

TIRG trains CSS with the soft triplet loss.  The default here stays batch
classification: on 200 references, 15 epochs, all else equal, R@1 was 65.5
with it and 38.4 with the soft triplet (`make demo`, with `--loss soft-triplet`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures, first_folder
from cqr.trainer.queries import LIGHT, Dataset, Protocol

NAME = "css"
LAYOUT = "scenes.json, made by `cqr scenes`"
MARKER = "scenes.json"
PUBLISHED: dict[str, int] = {}

PROTOCOL = Protocol(
    name="css",
    source="CSS protocol of TIRG (Vo et al., CVPR 2019) on generated scenes",
    gallery="all images of the test split",
    remove_reference=True,
    correct="caption",
    recall_at=(1, 5, 10, 50),
)


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def find(pictures: Pictures, data: Path | None) -> Path | None:
    return first_folder(pictures, data, lambda folder: (folder / MARKER).is_file())


def read(folder: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError when the folder is of another version or a part is missing."""
    manifest = _json(folder / MARKER)
    kind, version = manifest.get("format"), manifest.get("version")
    if (kind, version) != ("cqr-scenes", 1):
        raise UserError(
            f"{folder / MARKER} is {kind!r} version {version!r}, not 'cqr-scenes' version 1: "
            "make the folder again with `cqr scenes --overwrite`"
        )
    parts = [_split(folder, split) for split in ("train", "test")]
    return Dataset(
        name=NAME,
        root=folder,
        queries=pd.concat([queries for queries, _ in parts], ignore_index=True),
        images=pd.concat([images for _, images in parts], ignore_index=True),
        protocol=PROTOCOL,
        recommended=LIGHT,
        breakdown=("kind", "attribute"),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    return {}


def _split(folder: Path, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    content = _json(folder / f"{split}.json")
    images = pd.DataFrame(content["images"], columns=["file", "caption"])
    images = images.rename(columns={"file": "path"}).assign(split=split)
    queries = pd.DataFrame(
        content["queries"], columns=["source", "target", "text", "kind", "attribute"]
    )
    path = images["path"].to_numpy()
    queries = pd.DataFrame(
        {
            "query_id": [f"{split}-{i}" for i in range(len(queries))],
            "reference": path[queries["source"]],
            "text": queries["text"],
            "target": path[queries["target"]],
            "split": split,
            "kind": queries["kind"],
            "attribute": queries["attribute"],
        }
    )
    return queries, images


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({error}): make the folder again with `cqr scenes`"
        ) from error
