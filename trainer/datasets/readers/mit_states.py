"""MIT-States under TIRG's protocol.

The pictures are Isola et al.'s (CVPR 2015), in folders named "adjective noun"; the
test nouns and every rule are TIRG's (Vo et al., CVPR 2019, google/tirg, datasets.py,
class MITStates).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from cqr.errors import UserError
from cqr.listing import SUFFIXES, is_utf8, readable
from cqr.trainer.datasets.layout import Pictures, first_folder
from cqr.trainer.datasets.queries import Dataset, Protocol
from cqr.trainer.datasets.readers.mit_states_pairs import Changes

NAME = "mit-states"
LAYOUT = "images/ADJECTIVE NOUN/*.jpg"
PUBLISHED = {
    "images": 53_753,
    "training images": 43_207,
    "test images": 10_546,
    "test queries": 82_732,
    "nouns": 245,
    "adjectives": 115,
}
FOLDERS = ("images", "release_dataset/images")
_NOUNS = """
armor bracelet bush camera candy castle ceramic cheese clock clothes coffee fan fig fish foam
forest fruit furniture garden gate glass horse island laptop lead lightning mirror orange paint
persimmon plastic plate potato road rubber sand shell sky smoke steel stream table tea tomato
vacuum wax wheel window wool
"""
TEST_NOUNS = frozenset(_NOUNS.split())

PAIRS = {
    "tirg": (
        "as many as there are training images, in twos: an image, and two images of its noun in "
        "two states, of which one may be its own"
    ),
    "clean": (
        "as many as there are training images, in twos: an image, and two images of its noun in "
        "two states other than its own"
    ),
}
PROTOCOL = Protocol(
    name=NAME,
    source="MIT-States protocol of TIRG (Vo et al., CVPR 2019)",
    gallery="all images of the test nouns",
    remove_reference=True,
    correct="caption",
    recall_at=(1, 5, 10),
    also=("adjective", "noun"),
    text="the target's adjective",
)


@dataclass(frozen=True)
class Options:
    """How training pairs are drawn; queries and scores are the same with each.

    Attributes:
        rules: "tirg" is the released code's: every second pair has the reference of the
            one before and another adjective; an adjective may be the reference's own,
            which asks for no change (about one pair in eight).
            "clean" (ours) draws adjectives other than the reference's.
    """

    rules: Literal["tirg", "clean"] = "tirg"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    folder = first_folder(pictures, data, lambda place: _images_folder(place) is not None)
    if folder is None and data is None and _gone(pictures):
        states = {path.split("/")[-2] for path in pictures.paths if "/" in path}
        return pictures.root if _fits(states) else None
    return folder


def _gone(pictures: Pictures) -> bool:
    """Whether the pictures behind the features were moved away since."""
    return not any((pictures.root / path).exists() for path in pictures.paths[:1])


def read(root: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError when a folder cannot be listed, or there is no image of a split."""
    files, notes = _listed(root, pictures)
    images = _images(files)
    for split in ("train", "test"):
        if not (images["split"] == split).any():
            raise UserError(f"{root} has no pictures of {NAME}'s {split} nouns: unpack it again")
    return Dataset(
        name=NAME,
        root=root,
        queries=_queries(images[images["split"] == "test"]),
        images=images,
        protocol=replace(PROTOCOL, pairs=PAIRS[options.rules]),
        pairs=partial(Changes, clean=options.rules == "clean"),
        recommended={"loss": "soft-triplet"},
        breakdown=("noun",),
        notes=(*notes, *_lone(images)),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    images = dataset.images
    return {
        "images": len(images),
        "training images": int((images["split"] == "train").sum()),
        "test images": int((images["split"] == "test").sum()),
        "test queries": len(dataset.split("test")),
        "nouns": images["noun"].nunique(),
        "adjectives": images["adjective"].nunique(),
    }


def _images_folder(root: Path) -> Path | None:
    for folder in (root / name for name in FOLDERS):
        if folder.is_dir() and _fits(name for name, is_folder in _entries(folder) if is_folder):
            return folder
    return None


def _fits(folders: Iterable[str]) -> bool:
    """Whether most are named "adjective noun", by test nouns and by others."""
    names = [_words(folder) for folder in folders]
    nouns = [name[1] for name in names if len(name) == 2]
    tests = sum(noun in TEST_NOUNS for noun in nouns)
    return 2 * len(nouns) >= len(names) and 0 < tests < len(nouns)


def _words(folder: str) -> list[str]:
    return folder.lower().split()


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.is_dir()) for entry in entries]
    except OSError as error:
        raise UserError(
            f"cannot list {folder}: {error.strerror}; give yourself access to it"
        ) from error


def _listed(root: Path, pictures: Pictures) -> tuple[list[str], list[str]]:
    """Paths of the images, by folder, then by name; and what is to be said about them."""
    folder = _images_folder(root) if root.is_dir() else None
    notes = []
    if folder is None:
        paths = pictures.paths
        notes.append(
            f"the pictures of {root} are not there any more: the images are those that have regions"
        )
    else:
        above = folder.relative_to(root).as_posix()
        paths = [
            f"{above}/{state}/{name}"
            for state, is_folder in _entries(folder)
            if is_folder
            for name, _ in _entries(folder / state)
        ]
    kinds: dict[str, list[str]] = {"state": [], "stateless": [], "other": []}
    for path in sorted(paths, key=lambda path: path.split("/")[-2:]):
        kinds[_kind(path)].append(path)
    if kinds["stateless"]:
        notes.append(
            f'{len(kinds["stateless"])} images in folders "adj NOUN" show no state and are left '
            "out, as in TIRG's code"
        )
    if kinds["other"]:
        notes.append(
            f'{len(kinds["other"])} files are no pictures in a folder "ADJECTIVE NOUN" and are '
            f"left out, first {readable(kinds['other'][0])}"
        )
    return kinds["state"], notes


def _kind(path: str) -> Literal["state", "stateless", "other"]:
    *_, folder, name = ["", *path.split("/")]
    state, suffix = _words(folder), os.path.splitext(name)[1].lower()
    if len(state) != 2 or name.startswith(".") or suffix not in SUFFIXES or not is_utf8(path):
        return "other"
    return "stateless" if state[0] == "adj" else "state"


def _images(paths: list[str]) -> pd.DataFrame:
    states = [_words(path.split("/")[-2]) for path in paths]
    frame = pd.DataFrame(states, columns=["adjective", "noun"], dtype=object)
    tests = frame["noun"].isin(TEST_NOUNS)
    return pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=object),
            "caption": frame["adjective"] + " " + frame["noun"],
            "split": tests.map({True: "test", False: "train"}).astype(object),
            "adjective": frame["adjective"],
            "noun": frame["noun"],
            "group": frame["noun"],
        }
    )


def _queries(tests: pd.DataFrame) -> pd.DataFrame:
    """Every test image with every other adjective of its noun; the target is its first image."""
    states = tests.drop_duplicates("caption")[["noun", "adjective", "path"]]
    pairs = tests[["noun", "adjective", "path"]].merge(
        states, "left", "noun", suffixes=("", "_new")
    )
    pairs = pairs[pairs["adjective"] != pairs["adjective_new"]]
    columns = {
        "query_id": [f"test-{i}" for i in range(len(pairs))],
        "reference": pairs["path"].to_numpy(),
        "text": pairs["adjective_new"].to_numpy(),
        "target": pairs["path_new"].to_numpy(),
        "split": "test",
        "noun": pairs["noun"].to_numpy(),
    }
    return pd.DataFrame(columns, dtype=object)


def _lone(images: pd.DataFrame) -> Iterator[str]:
    states = images.groupby("noun")["adjective"].nunique()
    lone = states.index[states == 1]
    if len(lone):
        yield (
            f"{len(lone)} nouns have images in one state only, first {lone[0]}: they give no "
            "queries and no training pairs"
        )
