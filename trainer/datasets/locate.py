"""Names of images in a data set to paths of pictures.

A data set names an image by its path below its own root, or by a bare name
without folder or suffix; the pictures may lie in other folders than its
authors', or have another suffix.  One rule for all: a name and a path are of
the same image if one is the end of the other, component by component, the last
without the suffix of a picture.  An exact path wins, then the one that agrees in
the most components.  The Unicode form, backslashes and then case are ignored only where nothing
fits otherwise, and said.
Names of different images never share a picture: 1,111 images of MIT-States have a
file name that another one has in another folder.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from cqr.errors import UserError
from cqr.listing import SUFFIXES
from cqr.trainer.datasets.queries import Dataset

LISTS = ("members", "targets", "gallery")
"""Columns of queries that hold lists of images."""


def located(dataset: Dataset, paths: Sequence[str]) -> Dataset:
    """The data set, its images named by the paths of the pictures.

    An image of which there is no picture keeps its name, and is missing later.

    Raises:
        UserError: a name fits several pictures, and they are no copies of one;
            or a picture, lying in fewer folders than the data set names, fits
            two names.
    """
    queries, images = dataset.queries, dataset.images
    lists = [name for name in LISTS if name in queries]
    single = [name for name in ("reference", "target", "own_image") if name in queries]
    columns = [images["path"], *(queries[name] for name in single)]
    columns += [queries[name].explode() for name in lists]
    names = pd.unique(pd.concat(columns).dropna()).tolist()
    fitting, other_case = locate(names, paths)
    several = {name: some for name, some in fitting.items() if len(some) > 1}
    if several and not dataset.copies:
        name, some = next(iter(several.items()))
        raise UserError(
            f"{dataset.root} names {name}, which fits {' and '.join(some[:2])}: write the path"
        )
    if clash := _clash(fitting):
        path, one, other = clash
        raise UserError(
            f"{dataset.root} names {one} and {other}, and the picture {path} fits both: extract "
            "from a folder further up, so that the paths of the two differ"
        )

    def path_of(name: str | None) -> str | None:
        return fitting[name][0] if name in fitting else name

    def renamed(column: "pd.Series[str]") -> "pd.Series[str]":
        # not Series.map, which makes NaN of None
        return pd.Series([path_of(name) for name in column], column.index, dtype=object)

    moved = {name: renamed(queries[name]) for name in single}
    moved |= {
        name: queries[name].map(lambda some: some and [path_of(n) for n in some]) for name in lists
    }
    return replace(
        dataset,
        queries=queries.assign(**moved),
        images=images.assign(path=renamed(images["path"])),
        notes=(*dataset.notes, *_notes(fitting, several, other_case)),
    )


def _clash(fitting: dict[str, list[str]]) -> tuple[str, str, str] | None:
    """A picture and two names of different images that it would be taken for, if any."""
    owner: dict[str, str] = {}
    for name, (path, *_) in fitting.items():
        if name.count("/") > path.count("/"):
            other = owner.setdefault(path, name)
            short, long = sorted((name, other), key=lambda one: len(_stem(one)))
            if _end(_stem(long), short.count("/")) != _stem(short):
                return path, other, name
            owner[path] = long
    return None


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
        pairs = [(name, fitting[name][0]) for name in other_case]
        only_case = all(_plain(one) == one for pair in pairs for one in pair)
        what = "letter case" if only_case else "letter case, Unicode form or slashes"
        yield (
            f"{len(other_case)} images are named in other {what} than their files, first "
            f"{other_case[0]} ({fitting[other_case[0]][0]}): they are taken to be the same"
        )


def locate(names: list[str], paths: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The paths that fit best of each name that has a picture, and the names in other case.

    Returns:
        Name to paths, sorted; and those of the names that fit only in other letter case, Unicode
        form (NFC, NFD) or slashes.
    """
    there = set(paths)
    found = {name: [name] for name in names if name in there}
    if len(found) == len(names):
        return found, []
    stems = [_stem(path) for path in paths]
    wanted = {name: _stem(name) for name in names if name not in found}
    found |= _fitting(wanted, stems, paths)
    loose: dict[str, list[str]] = {}
    for form in (_plain, _folded):
        known = found | loose
        left = {n: form(stem) for n, stem in wanted.items() if n not in known}
        if left:
            loose |= _fitting(left, [form(stem) for stem in stems], paths)
    return found | loose, list(loose)


def _plain(stem: str) -> str:
    """Composed letters, as macOS does not write them, and "/" as Windows does not."""
    return unicodedata.normalize("NFC", stem).replace("\\", "/")


def _folded(stem: str) -> str:
    return _plain(stem).lower()


def _fitting(
    wanted: dict[str, str], stems: list[str], paths: Sequence[str]
) -> dict[str, list[str]]:
    """The paths that fit each name best, sorted, by the names' and the paths' stems.

    A path that ends in the whole name agrees in the most components that can be.
    Only for a name without one, its own ends are looked up among the paths, from
    the longest.  Each name and path is met once, however many share a last component.
    """
    longer = _by_end(stems, paths, set(wanted.values()))
    left = {stem for stem in wanted.values() if stem not in longer and "/" in stem}
    shorter = _by_whole(stems, paths, left) if left else {}
    for some in (*longer.values(), *shorter.values()):
        if len(some) > 1:
            some.sort()
    fitting = {name: longer.get(stem) or shorter.get(stem) for name, stem in wanted.items()}
    return {name: some for name, some in fitting.items() if some}


def _by_end(stems: list[str], paths: Sequence[str], wanted: set[str]) -> dict[str, list[str]]:
    """The paths that end in each of the wanted."""
    depths = sorted({end.count("/") for end in wanted})
    found: dict[str, list[str]] = {}
    for stem, path in zip(stems, paths, strict=True):
        for depth in depths:
            end = _end(stem, depth)
            if end in wanted:
                found.setdefault(end, []).append(path)
    return found


def _by_whole(stems: list[str], paths: Sequence[str], wanted: set[str]) -> dict[str, list[str]]:
    """The paths that are the longest proper end of each of the wanted, which no path is."""
    whole: dict[str, list[str]] = {}
    for stem, path in zip(stems, paths, strict=True):
        whole.setdefault(stem, []).append(path)
    found: dict[str, list[str]] = {}
    for depth in sorted({stem.count("/") for stem in whole}, reverse=True):
        for stem in wanted - found.keys():
            end = _end(stem, depth)
            if end in whole:
                found[stem] = whole[end]
    return found


def _end(stem: str, depth: int) -> str | None:
    """The end of a path that has so many "/"; None if the path has fewer."""
    first, *rest = stem.rsplit("/", depth + 1)
    if len(rest) > depth:
        return stem[len(first) + 1 :]
    return stem if len(rest) == depth else None


def _stem(path: str) -> str:
    """A path without the suffix of a picture."""
    dot = path.rfind(".")
    is_suffix = dot > path.rfind("/") and path[dot:].lower() in SUFFIXES
    return path[:dot] if is_suffix else path
