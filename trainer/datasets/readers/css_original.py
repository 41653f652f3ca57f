"""TIRG's own CSS files: one .npy of scenes and modifications, and a picture a scene.

google/tirg, datasets.py, class CSSDataset.
"""

import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.groups import Groups
from cqr.trainer.datasets.pairs import Drawn
from cqr.trainer.datasets.readers.css_npy import load
from cqr.unpickle import Array

FILE = "css_toy_dataset_novel2_small.dup.npy"
PUBLISHED = {
    "train images": 19_012,
    "test images": 19_057,
    "train queries": 18_012,
    "test queries": 18_057,
    "train modifications": 6_004,
    "test modifications": 6_019,
}


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries, with mod (its number in its split) and kind; and images.

    Raises:
        UserError: the file is refused (see `load`), or its parts do not fit together.
    """
    content = load(folder / FILE)
    if not isinstance(content, dict):
        raise _broken(folder, f"a {type(content).__name__}, not a dict")
    try:
        parts = [_split(folder, split, content.get(split)) for split in ("train", "test")]
    except (ValueError, AttributeError):  # of an array
        raise _broken(folder, "an array that is damaged") from None
    queries, images = zip(*parts, strict=True)
    return pd.concat(queries, ignore_index=True), pd.concat(images, ignore_index=True)


def counts(queries: pd.DataFrame, images: pd.DataFrame) -> dict[str, int]:
    named = {"images": images["split"], "queries": queries["split"]}
    named["modifications"] = queries.drop_duplicates(["split", "mod"])["split"]
    return {
        f"{split} {what}": int((column == split).sum())
        for what, column in named.items()
        for split in ("train", "test")
    }


class Modifications:
    """Pairs as TIRG's code draws them, in twos of one reference.

    The first of two is a random pair of a random modification; the second is another
    modification of the same reference, drawn among that reference's pairs.  Where
    there is no other, TIRG's code never ends; here the second is drawn as the first.

    Args:
        queries: of the training split; reference, text, target, and mod where several
            queries are of one modification (else a text is one).
        images: of the training split: an epoch has as many pairs as there are.
    """

    def __init__(self, queries: pd.DataFrame, images: pd.DataFrame) -> None:
        self.columns = [queries[name].to_numpy(object) for name in ("reference", "text", "target")]
        self.pairs = len(images) if len(queries) else 0
        self.mods = Groups(pd.factorize(queries["mod" if "mod" in queries else "text"])[0])
        self.sources = Groups(pd.factorize(queries["reference"])[0])
        of_source = pd.Series(self.mods.label).groupby(self.sources.label)
        self.has_other = (of_source.nunique() > 1).to_numpy()

    def __len__(self) -> int:
        return self.pairs

    def texts(self) -> Iterable[str]:
        return self.columns[1].tolist()

    def draw(self, rng: np.random.Generator) -> Drawn:
        first = self._any(rng, (len(self) + 1) // 2)
        second = self._any(rng, len(first))
        left = np.flatnonzero(self.has_other[self.sources.label[first]])
        while len(left):
            drawn = self.sources.draw(rng, self.sources.label[first[left]])
            other = self.mods.label[drawn] != self.mods.label[first[left]]
            second[left[other]] = drawn[other]
            left = left[~other]
        rows = np.stack([first, second], axis=1).ravel()[: len(self)]
        return Drawn(*(column[rows] for column in self.columns))

    def _any(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Queries of random modifications."""
        return self.mods.draw(rng, rng.integers(0, max(len(self.mods.size), 1), number))


MOST_PARTS = 900
"""Of a label: lists in lists, and what is in them."""

Row = tuple[int, str, int, str | None, int]
"""Reference, text, target, kind and modification of a query; images by their number."""


def _split(folder: Path, split: str, content: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    if not isinstance(content, dict):
        raise _broken(folder, f"no {split} split")
    number = len(_list(folder, f"{split} objects_img", content.get("objects_img")))
    labels: list[Any] = list(range(number))
    if "labels" in content:
        labels = _list(folder, f"{split} labels", content["labels"])
    if len(labels) != number:
        raise _broken(folder, f"{len(labels)} {split} labels for {number} images")
    mods = _list(folder, f"{split} mods", content.get("mods"))
    rows = [row for i, mod in enumerate(mods) for row in _rows(folder, split, i, mod, number)]
    paths = [f"images/css_{split}_{i:06d}.png" for i in range(number)]
    queries = {
        "query_id": [f"{split}-{i}" for i in range(len(rows))],
        "reference": [paths[row[0]] for row in rows],
        "text": [row[1] for row in rows],
        "target": [paths[row[2]] for row in rows],
        "split": split,
        "kind": [row[3] for row in rows],
        "mod": [row[4] for row in rows],
    }
    images = {"path": paths, "caption": [_text(folder, label) for label in labels], "split": split}
    return pd.DataFrame(queries, dtype=object), pd.DataFrame(images, dtype=object)


def _rows(folder: Path, split: str, number: int, mod: Any, images: int) -> Iterator[Row]:
    """The queries of a modification: it leads from its k-th image `from` to its k-th `to`."""
    where = f"{split} mods[{number}]"
    if not isinstance(mod, dict) or not isinstance(mod.get("to_str"), str):
        raise _broken(folder, f"no text (to_str) in {where}")
    sources, targets = (_list(folder, f"{where} {key}", mod.get(key)) for key in ("from", "to"))
    if len(sources) != len(targets):
        raise _broken(folder, f"{len(sources)} images from, {len(targets)} to, in {where}")
    for image in (*sources, *targets):
        if type(image) is not int or not 0 <= image < images:
            plain = isinstance(image, int | float | str)  # a list may hold itself many times over
            said = reprlib.repr(image) if plain else f"a {type(image).__name__}"
            raise _broken(folder, f"image {said} of {images} in {where}")
    kind = mod.get("type") if isinstance(mod.get("type"), str) else None
    for source, target in zip(sources, targets, strict=True):
        yield source, mod["to_str"], target, kind, number


def _text(folder: Path, label: Any) -> str:
    """A label as text.  Lists may stand in lists many times over: what is too long is refused."""
    left, parts = MOST_PARTS, [label]
    while parts:
        part = parts.pop()
        inner = part.values if isinstance(part, Array) else part
        if isinstance(inner, dict):
            inner = [*inner.keys(), *inner.values()]
        if isinstance(inner, list | tuple):
            parts += inner
            left -= len(inner)
        if left < 0:
            raise _broken(folder, "a label of too many parts")
    return str(label)


def _list(folder: Path, where: str, value: Any) -> list[Any]:
    if isinstance(value, Array):
        return value.values
    if not isinstance(value, list | tuple):
        raise _broken(folder, f"no list {where}")
    return list(value)


def _broken(folder: Path, what: str) -> UserError:
    return UserError(f"{folder / FILE} holds {what}: download TIRG's CSS data set again")
