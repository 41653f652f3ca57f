"""Fashion-200k under TIRG's protocol.

The pictures and their descriptions are Han et al.'s (ICCV 2017, xthan/fashion-200k
on GitHub); the test queries and every rule are TIRG's (Vo et al., CVPR 2019,
google/tirg, datasets.py, class Fashion200k).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures, first_folder, lines_of
from cqr.trainer.datasets.queries import Dataset, Protocol
from cqr.trainer.datasets.readers.fashion200k_pairs import Siblings, replacement

NAME = "fashion-200k"
LAYOUT = "labels/*_train_detect_all.txt and labels/*_test_detect_all.txt, with test_queries.txt"
PUBLISHED = {
    "training images": 172_049,
    "training captions": 53_099,
    "modifiable training images": 106_464,
    "test images": 29_789,
    "test queries": 33_480,
}
LABELS, QUERIES = "labels", "test_queries.txt"
CATEGORIES = ("dress", "jacket", "pants", "skirt", "top")
MARKS = str.maketrans({".": "dotmark", "?": "questionmark", "&": "andmark", "*": "starmark"})

PAIRS = {
    "tirg": (
        "as many as there are training images: an image, or a random other if no description "
        "differs from its own in one word, and a random image with such a description"
    ),
    "clean": (
        "every training image once that has one: a random image whose description differs from "
        "its own in exactly one word that neither has twice"
    ),
}


def protocol(rules: Literal["tirg", "clean"]) -> Protocol:
    return Protocol(
        name=NAME,
        source="Fashion-200k protocol of TIRG (Vo et al., CVPR 2019)",
        gallery="all images of the test split",
        remove_reference=True,
        correct="caption",
        recall_at=(1, 10, 50),
        text=(
            '"replace X with Y", X the first word of the reference\'s description that the '
            "target's lacks, else its last, and Y the other way round"
        ),
        pairs=PAIRS[rules],
    )


@dataclass(frozen=True)
class Options:
    """How training pairs are drawn; queries and scores are the same with each.

    Attributes:
        rules: "tirg" is the released code's.  A word is deleted from a description
            wherever it occurs, inside other words too; descriptions that are then
            equal are siblings, and a pair is two images of siblings.  Siblings that
            differ in the order of words alone have a text of shared words, such as
            "replace gown with gown".  Images without siblings are drawn anew.
            "clean" (ours) deletes one whole word, pairs descriptions only if each has
            a word that the other lacks, and takes every image that has siblings once.
    """

    rules: Literal["tirg", "clean"] = "tirg"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    return first_folder(
        pictures, data, lambda folder: any((folder / LABELS).glob("*_detect_all.txt"))
    )


def read(root: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError when a file is missing or a line of one is broken."""
    lines = [line for split in ("train", "test") for line in _lines(root, split)]
    images = _images(lines)
    queries = _queries(root / QUERIES, images[images["split"] == "test"])
    return Dataset(
        name=NAME,
        root=root,
        queries=queries,
        images=images,
        protocol=protocol(options.rules),
        pairs=partial(Siblings, clean=options.rules == "clean"),
        recommended={"loss": "batch-classification"},
        notes=(*_odd_files(root), *_odd_lines(lines), *_odd_images(images, queries)),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    """By TIRG's rules, whichever were chosen."""
    train, test = dataset.images_of("train"), dataset.images_of("test")
    return {
        "training images": len(train),
        "training captions": train["caption"].nunique(),
        "modifiable training images": len(Siblings(dataset.queries, train).modifiable),
        "test images": len(test),
        "test queries": len(dataset.split("test")),
    }


class _Line(NamedTuple):
    """A line of a label file: path, detection score, description, and what there is beyond."""

    file: Path
    number: int
    split: str
    fields: list[str]


def _lines(root: Path, split: str) -> Iterator[_Line]:
    """The label lines of a split, its files in the order of their names.

    Raises:
        UserError: there is no such file, or a line is not path, score and description.
    """
    files = sorted((root / LABELS).glob(f"*_{split}_detect_all.txt"))
    if not files:
        raise UserError(
            f"{root / LABELS} has no *_{split}_detect_all.txt: download the labels of "
            "Fashion-200k again"
        )
    for file in files:
        for number, line in lines_of(file):
            fields = line.split("\t")
            if len(fields) < 3 or not fields[0].strip():
                raise UserError(
                    f"{file} line {number} is not path, score and description with tabs between: "
                    "download the labels of Fashion-200k again"
                )
            yield _Line(file, number, split, fields)


def _images(lines: list[_Line]) -> pd.DataFrame:
    """A row a line, so an image that is listed twice is in the gallery twice, as in TIRG's code."""
    captions = {text: caption_of(text) for text in {line.fields[2] for line in lines}}
    paths = [line.fields[0].strip() for line in lines]
    columns = {
        "path": paths,
        "caption": [captions[line.fields[2]] for line in lines],
        "split": [line.split for line in lines],
        "group": [_product(path) for path in paths],
    }
    return pd.DataFrame(columns, dtype=object)


def caption_of(description: str) -> str:
    """A description as TIRG's code changes it: no lower case, no words cut."""
    return description.strip().translate(MARKS)


def _product(path: str) -> str:
    """The folder of the image, which is the number of its product."""
    return path.rpartition("/")[0].rpartition("/")[2] or path


def _queries(path: Path, tests: pd.DataFrame) -> pd.DataFrame:
    """The test queries, their texts made by the rule; none where there is no such file.

    Raises:
        UserError: a line is not two paths, or one is no test image.
    """
    if not path.is_file():
        names = ("query_id", "reference", "text", "target", "split")
        return pd.DataFrame({name: [] for name in names}, dtype=object)
    pairs = [(number, line.split()) for number, line in lines_of(path)]
    for number, pair in pairs:
        if len(pair) != 2:
            raise UserError(
                f"{path} line {number} is not two paths with a space between: download it again"
            )
    words = {
        name: caption.split()
        for name, caption in zip(tests["path"][::-1], tests["caption"][::-1], strict=True)
    }
    unknown = [(number, name) for number, pair in pairs for name in pair if name not in words]
    if unknown:
        number, name = unknown[0]
        lines = len({number for number, _ in unknown})
        raise UserError(
            f"{path} line {number} names {name}, which no {LABELS}/*_test_detect_all.txt lists "
            f"({lines} of {len(pairs)} lines name such images): complete the labels"
        )
    if not pairs:
        raise UserError(f"{path} holds no queries: download it again")
    columns = {
        "query_id": [f"test-{i}" for i in range(len(pairs))],
        "reference": [source for _, (source, _) in pairs],
        "text": [replacement(words[source], words[target]) for _, (source, target) in pairs],
        "target": [target for _, (_, target) in pairs],
        "split": "test",
    }
    return pd.DataFrame(columns, dtype=object)


def _odd_files(root: Path) -> Iterator[str]:
    """Files that the release has and this folder lacks, and the other way round."""
    if not (root / QUERIES).is_file():
        yield (
            f"{root / QUERIES} is missing, so that there are no test queries and nothing can be "
            "scored: it is no part of Fashion-200k but of TIRG's code; the README of "
            f"github.com/google/tirg says where to download it, to be put into {root}"
        )
    release = {f"{c}_{split}_detect_all.txt" for c in CATEGORIES for split in ("train", "test")}
    there = {file.name for file in (root / LABELS).iterdir() if file.is_file()}
    lacking = sorted(release - there)
    if lacking:
        names = ", ".join(lacking)
        yield f"{root / LABELS} lacks {len(lacking)} of the release's {len(release)} files: {names}"
    others = sorted(
        name
        for name in there
        if ("train" in name or "test" in name)
        and not name.endswith(("_train_detect_all.txt", "_test_detect_all.txt"))
    )
    if others:
        yield (
            f"{root / LABELS} has {len(others)} more files, first {others[0]}: they are not read "
            "(TIRG's code reads every file with train or test in its name)"
        )


def _odd_lines(lines: list[_Line]) -> Iterator[str]:
    longer = [line for line in lines if len(line.fields) > 3]
    if longer:
        yield (
            f"{len(longer)} label lines have more than three fields, first {longer[0].file.name} "
            f"line {longer[0].number}: what is beyond the third is not read, as in TIRG's code"
        )


def _odd_images(images: pd.DataFrame, queries: pd.DataFrame) -> Iterator[str]:
    several = images.drop_duplicates(["path", "caption"])
    several = several[several.duplicated("path")]
    if len(several):
        yield (
            f"{len(several)} images are listed again with another description, first "
            f"{several['path'].iloc[0]}: for a query its first description counts"
        )
    wordless = set(images.loc[images["caption"] == "", "path"])
    affected = queries["reference"].isin(wordless) | queries["target"].isin(wordless)
    if affected.any():
        yield (
            f"{affected.sum()} queries are of images without a description, first "
            f"{queries['query_id'][affected].iloc[0]}: their texts lack a word"
        )
