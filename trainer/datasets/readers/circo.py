"""CIRCO (Baldrati et al., ICCV 2023): photographs of COCO's unlabeled set, several correct ones.

Recall counts the one target for which the text was written, average precision
every correct image, as in the authors' own scorer (miccunifi/CIRCO,
src/evaluation.py, compute_metrics).  The authors' method leaves the reference in
the gallery (miccunifi/SEARLE, src/validate.py, circo_compute_val_metrics, and
src/generate_test_submission.py, circo_generate_test_dict), and so does the
default here; it is a correct image of no val query.  The truth of test is kept by
the authors' server.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.forms import Form, Keyed
from cqr.trainer.datasets.layout import Pictures, check_ids, first_folder, json_of, unlisted
from cqr.trainer.datasets.queries import QUERY_COLUMNS, Dataset, Protocol
from cqr.trainer.datasets.records import records_of, text_in, value_in, values_in

NAME = "circo"
LAYOUT = (
    "CIRCO's annotations/val.json and annotations/test.json, in that folder or up to two above it"
)
SPLITS = ("val", "test")
PUBLISHED = {"val pairs": 220, "test pairs": 800, "images": 123_403}

PROTOCOL = Protocol(
    name="circo",
    source="CIRCO (Baldrati et al., ICCV 2023)",
    gallery="all images of the COCO 2017 unlabeled set",
    remove_reference=False,
    correct="target",
    recall_at=(5, 10, 25, 50),
    scored="val",
    submitted="test",
    precision_at=(5, 10, 25, 50),
    pairs="none, the data set is for evaluation only",
)

SUBMISSION = (
    Form(file="circo.test.json", depth=50, layout=Keyed(), server="https://circo.micc.unifi.it/"),
)

_INFO = "annotations/image_info_unlabeled2017.json"


@dataclass(frozen=True)
class Options:
    """What CIRCO leaves to choose.

    Attributes:
        reference: "kept" in the gallery, as the authors' SEARLE does, or "removed".
    """

    reference: Literal["kept", "removed"] = "kept"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    place = first_folder(pictures, data, lambda folder: _home(folder) is not None)
    return None if place is None else _home(place)


def read(root: Path, pictures: Pictures, options: Options) -> Dataset:
    """The splits whose annotations are there.

    Own columns: `targets` of queries, every correct image, none where only the
    server knows, and `shared_concept`; `name` of images, COCO's number.

    Raises:
        UserError: a file cannot be read, an entry lacks something or is of another
            type, or an id is given twice.
    """
    there = [split for split in SPLITS if _annotations(root, split).is_file()]
    info = next((p for p in _infos(root) if p.is_file()), None)
    names, notes = _found(root, pictures) if info is None else (_listed(info), [])
    if len(names) > len(set(names)):
        raise UserError(f"{info} lists an image twice: download it again")
    notes += [
        f"{_annotations(root, split)} is not there: there are no {split} queries"
        for split in SPLITS
        if split not in there
    ]
    columns = {"path": [_file(n) for n in names], "caption": None, "split": None, "name": names}
    images = pd.DataFrame(columns, dtype=object)
    parts = [_queries(_annotations(root, split), split) for split in there]
    queries = pd.concat(parts, ignore_index=True)
    notes += unlisted(queries, "targets", images["path"], str(info or "the gallery"))
    whole = PROTOCOL.gallery
    return Dataset(
        name=NAME,
        root=root,
        queries=queries,
        images=images,
        protocol=replace(
            PROTOCOL,
            gallery=whole if info else f"the pictures found, of {whole}",
            remove_reference=options.reference == "removed",
        ),
        notes=tuple(notes),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    pairs = {f"{split} pairs": len(dataset.split(split)) for split in SPLITS}
    return pairs | {"images": len(dataset.images)}


def _home(folder: Path) -> Path | None:
    """The folder of CIRCO itself, for pictures in COCO2017_unlabeled/unlabeled2017 below it."""
    for place in (folder, folder.parent):
        if any(_is_circo(_annotations(place, split)) for split in SPLITS):
            return place
    return None


def _is_circo(file: Path) -> bool:
    """Other data sets call their files so, too."""
    if not file.is_file():
        return False
    with file.open("rb") as content:
        return b'"reference_img_id"' in content.read(4096)


def _annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"{split}.json"


def _infos(root: Path) -> list[Path]:
    return [root / "COCO2017_unlabeled" / _INFO, root / _INFO]


def _file(number: int) -> str:
    return f"{number:012d}.jpg"


def _listed(info: Path) -> list[int]:
    """The numbers of the images of COCO's own list."""
    images = json_of(info).get("images")
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise UserError(f"{info} has no list of images: download it again")
    return [value_in(image, "id", int, info, place) for place, image in enumerate(images)]


def _found(root: Path, pictures: Pictures) -> tuple[list[int], list[str]]:
    """The numbers of the pictures at hand, and what that means."""
    stems = [path.rpartition("/")[2].partition(".")[0] for path in pictures.paths]
    numbers = sorted({int(stem) for stem in stems if re.fullmatch("[0-9]{12}", stem)})
    note = (
        f"{root} has no {_INFO}: the gallery is the {len(numbers):,} pictures found that are "
        f"named by 12 digits; results compare only if these are all {PUBLISHED['images']:,}"
    )
    return numbers, [note]


def _queries(file: Path, split: str) -> pd.DataFrame:
    rows = list(_rows(file, split))
    columns = [*QUERY_COLUMNS, "targets", "shared_concept"]
    queries = pd.DataFrame(rows, columns=columns, dtype=object)
    check_ids(file, queries, "id")
    return queries


def _rows(file: Path, split: str) -> Iterator[tuple[Any, ...]]:
    for place, entry in enumerate(records_of(file)):
        target, targets = None, []
        if split == "val":
            target = _file(value_in(entry, "target_img_id", int, file, place))
            targets = [_file(n) for n in values_in(entry, "gt_img_ids", int, file, place)]
        yield (
            str(value_in(entry, "id", int, file, place)),
            _file(value_in(entry, "reference_img_id", int, file, place)),
            text_in(entry, "relative_caption", file, place),
            target,
            split,
            targets,
            text_in(entry, "shared_concept", file, place),
        )
