"""CIRR, version rc2 (Liu et al., ICCV 2021): photographs of NLVR2, and sentences by people.

A query is scored against every image of its split's list without its reference,
and among the six images of its set without its reference (Recall_subset).  As in
CLIP4Cir (ABaldrati/CLIP4Cir, src/validate.py, compute_cirr_val_metrics) only
`target_hard` is correct.  CIRPLANT's own scorer of val also counts `target_soft`,
by its weights: its numbers are higher and do not compare.  The truth of test1 is
kept by the authors' server.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.forms import Form, Keyed
from cqr.trainer.datasets.layout import Pictures, check_ids, first_folder, json_of, unlisted
from cqr.trainer.datasets.queries import QUERY_COLUMNS, Dataset, Protocol
from cqr.trainer.datasets.records import (
    is_text,
    name_in,
    records_of,
    text_in,
    value_in,
    values_in,
)

NAME = "cirr"
LAYOUT = (
    "captions/cap.rc2.SPLIT.json and image_splits/split.rc2.SPLIT.json, "
    "in that folder or in cirr/ below it"
)
SPLITS = ("train", "val", "test1")
PUBLISHED = {
    "train pairs": 28_225,
    "val pairs": 4_181,
    "test1 pairs": 4_148,
    "train images": 16_939,
    "val images": 2_297,
    "test1 images": 2_315,
    "val image sets": 503,
    "test1 image sets": 503,
}
"""The paper's 4,184 val pairs are a misprint, as the authors' README says."""

PROTOCOL = Protocol(
    name="cirr",
    source="CIRR rc2 (Liu et al., ICCV 2021; the average is a convention of later papers)",
    gallery="all images of the split",
    remove_reference=True,
    correct="target",
    recall_at=(1, 5, 10, 50),
    scored="val",
    submitted="test1",
    subset_recall_at=(1, 2, 3),
    average=("R@5", "R_subset@1"),
)

SUBMISSION = tuple(
    Form(
        file=f"cirr.{metric}.json",
        depth=depth,
        layout=Keyed({"version": "rc2", "metric": metric}),
        among_members=metric == "recall_subset",
        largest=5_000_000,  # "5MB"
        server="http://cirr.cecs.anu.edu.au/",
    )
    for metric, depth in (("recall", 50), ("recall_subset", 3))
)
"""As Cuberick-Orion/CIRR asks for them, Test-split_server.md."""


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def find(pictures: Pictures, data: Path | None) -> Path | None:
    """The folder of the captions; below the one given it is cirr/, as in CLIP4Cir's layout."""
    below = (data or pictures.root) / "cirr"
    return first_folder(pictures, data, _fits) or (below if _fits(below) else None)


def read(root: Path, pictures: Pictures, options: Options) -> Dataset:
    """The splits whose captions are there.

    Own columns: `members` of queries, the image set with the reference; `name`
    of images, CIRR's own.

    Raises:
        UserError: a file cannot be read, an entry lacks something or is of another
            type, an id is given twice, or two names share a picture.
    """
    there = [split for split in SPLITS if _captions(root, split).is_file()]
    lists = [_images(root, split, split in there) for split in SPLITS]
    images = pd.concat(lists, ignore_index=True)
    path = dict(zip(images["name"], images["path"], strict=True))
    parts = [_queries(root, split) for split in there]
    notes = [
        f"{_captions(root, split)} is not there: there are no {split} queries"
        for split in SPLITS
        if split not in there
    ]
    for split, queries in zip(there, parts, strict=True):
        names = images["name"][images["split"] == split]
        notes += unlisted(queries, "members", names, str(_list(root, split)))
    queries = pd.concat(parts, ignore_index=True)
    for column in ("reference", "target"):
        named = [path.get(name, name) for name in queries[column]]
        queries[column] = pd.Series(named, dtype=object)  # pandas alone would make None NaN
    queries["members"] = [[path.get(name, name) for name in some] for some in queries["members"]]
    protocol = PROTOCOL
    if "train" not in there:
        protocol = replace(PROTOCOL, pairs=f"none, {_captions(root, 'train')} is not there")
    return Dataset(
        name=NAME,
        root=root,
        queries=queries,
        images=images,
        protocol=protocol,
        notes=tuple(notes),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    pairs = {f"{split} pairs": len(dataset.split(split)) for split in SPLITS}
    images = {f"{split} images": len(dataset.gallery(split)) for split in SPLITS}
    sets = {
        f"{split} image sets": dataset.split(split)["members"].map(frozenset).nunique()
        for split in SPLITS[1:]
    }
    return pairs | images | sets


def _fits(folder: Path) -> bool:
    return any(_captions(folder, split).is_file() for split in SPLITS)


def _captions(root: Path, split: str) -> Path:
    return root / "captions" / f"cap.rc2.{split}.json"


def _list(root: Path, split: str) -> Path:
    return root / "image_splits" / f"split.rc2.{split}.json"


def _images(root: Path, split: str, needed: bool) -> pd.DataFrame:
    """path, caption, split, name of the images that a split lists."""
    file = _list(root, split)
    listed = json_of(file) if needed or file.is_file() else {}
    odd = [name for name, path in listed.items() if not (is_text(name) and is_text(path))]
    if odd:
        raise UserError(f"{file} has no path for {odd[0]!a}: download it again")
    paths = {name: path.removeprefix("./") for name, path in listed.items()}
    if len(set(paths.values())) < len(paths):
        raise UserError(f"{file} gives two names to one picture: download it again")
    columns = {"path": list(paths.values()), "caption": None, "split": split, "name": list(paths)}
    return pd.DataFrame(columns, dtype=object)


def _queries(root: Path, split: str) -> pd.DataFrame:
    """The queries of a split, their images by CIRR's names."""
    file = _captions(root, split)
    rows = []
    for place, entry in enumerate(records_of(file)):
        bare = split == "train" and "img_set" not in entry  # no measure of training needs it
        members = {"members": []} if bare else value_in(entry, "img_set", dict, file, place)
        some = values_in(members, "members", str, file, place)
        if twice := [name for name in some if some.count(name) > 1]:
            raise UserError(
                f"{file}: entry {place} (from 0) names {twice[0]} twice in its image set: "
                "download it again"
            )
        rows.append(
            (
                str(value_in(entry, "pairid", int, file, place)),
                name_in(entry, "reference", file, place),
                text_in(entry, "caption", file, place),
                None if split == "test1" else name_in(entry, "target_hard", file, place),
                split,
                some,
            )
        )
    queries = pd.DataFrame(rows, columns=[*QUERY_COLUMNS, "members"], dtype=object)
    check_ids(file, queries, "pairid")
    return queries
