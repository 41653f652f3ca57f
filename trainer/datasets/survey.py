"""A data set held against its own files: what is there, missing, empty, blank or twice."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.listing import SUFFIXES, files, is_utf8
from cqr.trainer.datasets import recognise
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import Dataset, tasks


@dataclass(frozen=True)
class Survey:
    """What a look at a data set's folder has shown.

    Attributes:
        dataset: as it was read.
        pictures: the folder that the paths are relative to.
        counts: what is counted, its number here, and that of the whole release, if known.
        splits: by split: queries, images, and images of the gallery if it is scored.
        named: different images that training or ranking needs.
        there: paths of their pictures, sorted.
        missing, empty: images without a picture, and paths of pictures of no byte.
        unused: pictures in the folder that are not needed.
        blank: ids of queries without a word.
        repeated: ids of queries that repeat an earlier one.
        twice: images that a split lists more than once.
        astray: ids of scored queries without any correct image in the gallery.
        alike: groups of paths of pictures that are equal byte by byte; None if not compared.
    """

    dataset: Dataset
    pictures: Path
    counts: list[tuple[str, int, int | None]]
    splits: list[tuple[str, int, int, int | None]]
    named: int
    there: list[str]
    missing: list[str]
    empty: list[str]
    unused: int
    blank: list[str]
    repeated: list[str]
    twice: list[str]
    astray: list[str]
    alike: list[list[str]] | None


def survey(
    data: Path,
    images: Path | None = None,
    name: str | None = None,
    chosen: Sequence[str] = (),
    compare: bool = False,
) -> Survey:
    """Read a data set and look at its pictures.

    Args:
        data: its folder, or a table.
        images: where its pictures are; None: below that folder, or for a table in the
            folder of its name beside it, else in the folder that it is in.
        name: of the data set; None recognises it.
        chosen: among its options: NAME=VALUE each.
        compare: find pictures that are equal byte by byte, which reads them all.

    Raises:
        UserError: nothing was recognised, or it is broken.
    """
    if not data.exists():
        raise UserError(f"{data} does not exist: name the folder of a data set, or a table")
    root = images or _pictures_of(data)
    pictures = Pictures(root, [path for path in files(root, SUFFIXES)[0] if is_utf8(path)])
    # a folder of pictures may have its queries beside it, as for training
    found = recognise.find(pictures, None if root == data else data, name)
    dataset = recognise.read(found, pictures, given=tuple(chosen))
    queries = dataset.queries
    named = dataset.needed()
    known = set(pictures.paths)
    there = sorted(path for path in named if path in known)
    counted = found.reader.counts(dataset)
    published = found.reader.PUBLISHED
    return Survey(
        dataset=dataset,
        pictures=root,
        counts=[(what, number, published.get(what)) for what, number in counted.items()],
        splits=_splits(dataset),
        named=len(named),
        there=there,
        missing=[path for path in named if path not in known],
        empty=[path for path in there if (root / path).stat().st_size == 0],
        unused=len(known) - len(there),
        blank=_ids(queries[~queries["text"].str.contains(r"\w", regex=True)]),
        repeated=_ids(queries[queries.duplicated(["reference", "text", "target", "split"])]),
        twice=_twice(dataset),
        astray=_astray(dataset),
        alike=_alike(root, there) if compare else None,
    )


def _pictures_of(data: Path) -> Path:
    if data.is_dir():
        return data
    named = data.with_name(data.stem.removesuffix(".queries"))
    return named if named.is_dir() else data.parent


def write_list(there: list[str], out: Path) -> None:
    """A path a line, for `cqr extract --list`."""
    with replacing(out) as temporary:
        temporary.write_text("".join(f"{path}\n" for path in there), encoding="utf-8")


def _ids(queries: pd.DataFrame) -> list[str]:
    return queries["query_id"].astype(str).tolist()


def _splits(dataset: Dataset) -> list[tuple[str, int, int, int | None]]:
    names = pd.unique(pd.concat([dataset.queries["split"], dataset.images["split"]]).dropna())
    protocol = dataset.protocol
    judged = (protocol.scored, protocol.submitted)
    return [
        (
            name,
            len(dataset.split(name)),
            dataset.images_of(name)["path"].nunique(),
            len(dataset.gallery(name)) if name in judged else None,
        )
        for name in names
    ]


def _twice(dataset: Dataset) -> list[str]:
    columns = ["path", "split"] + [c for c in [dataset.protocol.part] if c is not None]
    paths: list[str] = dataset.images.loc[dataset.images.duplicated(columns), "path"].tolist()
    return paths


def _astray(dataset: Dataset) -> list[str]:
    scored = dataset.protocol.scored
    if dataset.split(scored).empty:
        return []
    return [
        str(query)
        for work in tasks(dataset, scored)
        for query, correct in zip(work.queries["query_id"], work.correct, strict=True)
        if not len(correct)
    ]


def _alike(root: Path, paths: list[str]) -> list[list[str]]:
    """Groups of equal files; only files of one size are read."""
    by_size: dict[int, list[str]] = {}
    for path in paths:
        by_size.setdefault((root / path).stat().st_size, []).append(path)
    by_hash: dict[tuple[int, bytes], list[str]] = {}
    for size, some in by_size.items():
        for path in some if size and len(some) > 1 else ():
            digest = hashlib.sha256((root / path).read_bytes()).digest()
            by_hash.setdefault((size, digest), []).append(path)
    return [group for group in by_hash.values() if len(group) > 1]
