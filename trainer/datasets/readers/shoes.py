"""Shoes (Guo et al., NeurIPS 2018): a caption that tells one shoe from another.

The pictures are those of the Attribute Discovery data set.  What the release calls
"eval" is the test split here: it is scored, and nothing else is held back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures, first_folder, lines_of
from cqr.trainer.datasets.queries import Dataset, Protocol
from cqr.trainer.datasets.recommended import LIGHT
from cqr.trainer.datasets.records import name_in, records_of, text_in

NAME = "shoes"
CAPTIONS = "relative_captions_shoes.json"
LISTS = {"train": "train_im_names.txt", "test": "eval_im_names.txt"}
LAYOUT = f"{CAPTIONS}, {' and '.join(LISTS.values())}"
PUBLISHED = {
    "pairs": 10_751,
    "train pairs": 8_990,
    "test pairs": 1_761,
    "train images": 10_000,
    "test images": 4_658,
}
VAL_LIST = 4_621
"""Names in the shorter eval list that VAL ships."""

GALLERIES = {
    "eval": "all images of the eval list",
    "with-references": "all images of the eval list and of the test pairs",
}


@dataclass(frozen=True)
class Options:
    """What published codes do differently.

    Attributes:
        gallery: "eval", the eval list; pairs with both images in it are scored
            (ARTEMIS, DQU-CIR).  "with-references", pairs with either image in it
            are scored, and their images join the gallery (VAL, which also asks
            each pair once for each of its images in the list; here it is asked
            once).  With the release's list the two are the same.
    """

    gallery: Literal["eval", "with-references"] = "eval"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    return first_folder(pictures, data, lambda folder: (folder / CAPTIONS).is_file())


def read(root: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError when a file is missing, an entry is broken, or no pair is listed."""
    listed = {split: _names(root / file) for split, file in LISTS.items()}
    pairs = _pairs(root / CAPTIONS)
    pairs["split"] = _splits(pairs, listed, options)
    queries = pairs[pairs["split"].notna()].reset_index(drop=True)
    if queries.empty:
        raise UserError(
            f"none of the {len(pairs)} pairs of {root / CAPTIONS} has both images in "
            f"{' or in '.join(LISTS.values())}: download the three files again"
        )
    added = _added(queries, listed)
    galleries = {"train": listed["train"], "test": listed["test"] + added}
    images = [
        pd.DataFrame({"path": names, "caption": None, "split": split}, dtype=object)
        for split, names in galleries.items()
    ]
    return Dataset(
        name=NAME,
        root=root,
        queries=queries,
        images=pd.concat(images, ignore_index=True),
        protocol=Protocol(
            name=NAME,
            source="Shoes (Guo et al., NeurIPS 2018)",
            gallery=GALLERIES[options.gallery],
            remove_reference=True,
            correct="target",
            recall_at=(1, 10, 50),
        ),
        recommended=LIGHT,
        notes=(*_list_notes(listed), *_pair_notes(pairs, listed), *_added_note(added)),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    numbers = {"pairs": len(records_of(dataset.root / CAPTIONS))}
    for split in LISTS:
        numbers[f"{split} pairs"] = len(dataset.split(split))
        numbers[f"{split} images"] = len(dataset.images_of(split))
    return numbers


def _names(path: Path) -> list[str]:
    """The images of a list, one a line, by their file names, as the pairs name them."""
    names = [_file_name(line) for _, line in lines_of(path)]
    if not names:
        raise UserError(f"{path} lists no images: download it again")
    return names


def _pairs(path: Path) -> pd.DataFrame:
    rows = [
        {
            "query_id": str(place),
            "reference": _file_name(name_in(record, "ReferenceImageName", path, place)),
            "text": text_in(record, "RelativeCaption", path, place).strip(),
            "target": _file_name(name_in(record, "ImageName", path, place)),
        }
        for place, record in enumerate(records_of(path))
    ]
    return pd.DataFrame(rows, dtype=object)


def _file_name(path: str) -> str:
    return path.strip().rpartition("/")[2]


def _splits(
    pairs: pd.DataFrame, listed: dict[str, list[str]], options: Options
) -> "pd.Series[str]":
    """The split of each pair; None for one that is left out."""
    within = {split: _in_list(pairs, names) for split, names in listed.items()}
    is_test = within["test"] == 2
    if options.gallery == "with-references":
        is_test |= (within["test"] == 1) & (within["train"] == 0)
    split = np.select([within["train"] == 2, is_test], ["train", "test"], default="")
    return pd.Series([name or None for name in split], pairs.index, dtype=object)


def _in_list(pairs: pd.DataFrame, names: list[str]) -> "pd.Series[int]":
    """How many of a pair's two images a list has."""
    return pairs["reference"].isin(names).astype(int) + pairs["target"].isin(names)


def _added(queries: pd.DataFrame, listed: dict[str, list[str]]) -> list[str]:
    """Images of test pairs that the eval list lacks."""
    asked = queries[queries["split"] == "test"]
    named = pd.unique(pd.concat([asked["reference"], asked["target"]]))
    known = set(listed["test"])
    return [name for name in named if name not in known]


def _list_notes(listed: dict[str, list[str]]) -> Iterator[str]:
    if len(listed["test"]) == VAL_LIST:
        yield (
            f"{LISTS['test']} has {VAL_LIST:,} images: it is the list that VAL ships, "
            f"{PUBLISHED['test images'] - VAL_LIST} shorter than the release's"
        )
    train = set(listed["train"])
    shared = [name for name in listed["test"] if name in train]
    if shared:
        yield f"images in both lists: {len(shared)}, first {shared[0]}"


def _pair_notes(pairs: pd.DataFrame, listed: dict[str, list[str]]) -> Iterator[str]:
    left = pairs[pairs["split"].isna()]
    within = {split: _in_list(left, names) for split, names in listed.items()}
    across = (within["train"] > 0) & (within["test"] > 0)
    for some, why in (
        (left[~across], "an image in no list"),
        (left[across], "one image in either list"),
    ):
        if len(some):
            first = some.iloc[0]
            yield (
                f"pairs left out, with {why}: {len(some)}, first entry {first['query_id']} "
                f"(from 0), {first['reference']} and {first['target']}"
            )
    same = pairs[(pairs["reference"] == pairs["target"]) & (pairs["split"] == "test")]
    if len(same):
        yield (
            f"test pairs with one image as reference and target: {len(same)}, first "
            f"{same.iloc[0]['target']}; with the reference removed no query can find it"
        )


def _added_note(added: list[str]) -> Iterator[str]:
    if added:
        yield (
            f"images of test pairs that {LISTS['test']} lacks, added to the gallery: "
            f"{len(added)}, first {added[0]}"
        )
