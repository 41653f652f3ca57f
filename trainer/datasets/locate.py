"""Names of images in a data set to paths of pictures.

A data set names an image by its path below its own root, or by a bare name
without folder or suffix; the pictures may lie in other folders than its
authors', or have another suffix.  One rule for all: a name and a path are of
the same image if one is the end of the other, component by component, the last
without the suffix of a picture.  An exact path wins, then the one that agrees in
the most components.  Case is ignored only where nothing fits otherwise, and said.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pandas as pd

from cqr.errors import UserError
from cqr.listing import SUFFIXES
from cqr.trainer.queries import Dataset

LISTS = ("members", "targets")
"""Columns of queries that hold lists of images."""


def located(dataset: Dataset, paths: Sequence[str]) -> Dataset:
    """The data set, its images named by the paths of the pictures.

    An image of which there is no picture keeps its name, and is missing later.

    Raises:
        UserError: a name fits several pictures, and they are no copies of one.
    """
    queries, images = dataset.queries, dataset.images
    lists = [name for name in LISTS if name in queries]
    columns = [images["path"], queries["reference"], queries["target"]]
    columns += [queries[name].explode() for name in lists]
    names = pd.unique(pd.concat(columns).dropna()).tolist()
    fitting, other_case = locate(names, paths)
    several = {name: some for name, some in fitting.items() if len(some) > 1}
    if several and not dataset.copies:
        name, some = next(iter(several.items()))
        raise UserError(
            f"{dataset.root} names {name}, which fits {' and '.join(some[:2])}: write the path"
        )

    def path(name: str | None) -> str | None:
        return fitting[name][0] if name in fitting else name

    def renamed(column: "pd.Series[str]") -> "pd.Series[str]":
        # a map of strings and None would be a column of strings and NaN
        return pd.Series([path(name) for name in column], column.index, dtype=object)

    moved = {name: renamed(queries[name]) for name in ("reference", "target")}
    moved |= {name: queries[name].map(lambda some: [path(n) for n in some]) for name in lists}
    return replace(
        dataset,
        queries=queries.assign(**moved),
        images=images.assign(path=renamed(images["path"])),
        notes=(*dataset.notes, *_notes(fitting, several, other_case)),
    )


def _notes(
    fitting: dict[str, list[str]], several: dict[str, list[str]], other_case: list[str]
) -> Iterator[str]:
    if several:
        name, some = next(iter(several.items()))
        yield (
            f"{len(several)} images have several pictures, first {name} ({', '.join(some)}): "
            "the first of each is used"
        )
    if other_case:
        yield (
            f"{len(other_case)} images are named in other letter case than their files, first "
            f"{other_case[0]} ({fitting[other_case[0]][0]}): they are taken to be the same"
        )


def locate(names: Iterable[str], paths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The paths that fit best of each name that has a picture, and the names in other case."""
    there = set(paths)
    found = {name: [name] for name in names if name in there}
    found |= _fitting([name for name in names if name not in found], paths, str)
    other_case = _fitting([name for name in names if name not in found], paths, str.lower)
    return found | other_case, list(other_case)


def _fitting(
    names: list[str], paths: Sequence[str], fold: Callable[[str], str]
) -> dict[str, list[str]]:
    """The paths that fit each name best, sorted, both folded before they are compared."""
    if not names:
        return {}
    by_stem: dict[str, list[str]] = {}
    for path in sorted(paths):
        by_stem.setdefault(fold(_stem(path)), []).append(path)
    found = {}
    for name in names:
        agreement = {
            path: _agreement(fold(name), fold(path)) for path in by_stem.get(fold(_stem(name)), [])
        }
        most = max(agreement.values(), default=0)
        if most:
            found[name] = [path for path, n in agreement.items() if n == most]
    return found


def _agreement(name: str, path: str) -> int:
    """Components in which the one is the end of the other; 0 if it is not."""
    a, b = (text.split("/")[-2::-1] for text in (name, path))
    shared = min(len(a), len(b))
    return shared + 1 if a[:shared] == b[:shared] else 0


def _stem(path: str) -> str:
    """The last component, without the suffix of a picture."""
    last = path.rpartition("/")[2]
    stem, _, suffix = last.rpartition(".")
    return stem if f".{suffix.lower()}" in SUFFIXES else last
