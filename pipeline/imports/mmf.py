"""A folder of X.npy and X_info.npy, two files a picture, as mmf's feature extraction writes them.

tools/scripts/features of facebookresearch/mmf: X.npy is n x D; X_info.npy a pickled dictionary
with bbox (n x 4), image_width, image_height and, in some versions, num_boxes and objects.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cqr import unpickle
from cqr.listing import Failure, files, is_utf8, readable
from cqr.pipeline.imports.source import Broken, Entry, Found, Kind

END = "_info.npy"
LIMIT = 2**28
"""Bytes of a file."""


class Mmf:
    """Such a folder; see the module."""

    format = "mmf"
    notes: ClassVar[list[str]] = []

    def __init__(self, folder: Path):
        self.folder = folder
        names, self.unreadable = files(folder, {".npy"})
        self.names = [name.removesuffix(END) for name in names if name.endswith(END)]

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether there is such a pair."""
        return any(name.endswith(END) for name in files(folder, {".npy"})[0])

    def close(self) -> None: ...

    def entries(self) -> Iterator[Entry | Failure]:
        yield from self.unreadable
        for name in self.names:
            if not is_utf8(name):
                yield Failure(readable(name), "name is not valid UTF-8")
                continue
            try:
                found = self._read(name)
            except Broken as error:
                yield Failure(name, str(error))
            else:
                kind = Kind(found.features.shape[1], tuple(found.extras), ranked=False)
                yield Entry(name, name, "", len(found.features), kind)

    def read(self, entry: Entry) -> Found:
        return self._read(entry.place)

    def _read(self, name: str) -> Found:
        info = self._info(name)
        features = self._features(name)
        boxes, size = _numbers(info, "bbox"), [_numbers(info, *n) for n in _SIZE]
        number = _numbers(info, "num_boxes") if "num_boxes" in info else np.array(len(features))
        if any(one.size != 1 for one in (*size, number)):
            raise Broken("has a size or num_boxes in its info that is no number")
        n = int(number.item())
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not 0 < n <= min(len(boxes), len(features)):
            raise Broken(f"has {len(features)} features, {n} of them real, but boxes {boxes.shape}")
        classes = _numbers(info, "objects") if "objects" in info else None
        fit = classes is not None and classes.ndim == 1 and len(classes) >= n
        width, height = (int(one.item()) for one in size)
        return Found(
            features=features[:n],
            boxes=boxes[:n],
            confidence=None,
            extras={"classes": classes[:n]} if fit and classes is not None else {},
            size=(width, height),
        )

    def _features(self, name: str) -> NDArray[Any]:
        file = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise Broken(f"has no {os.path.basename(name)}.npy") from None
        except Exception as error:  # numpy raises nearly anything on damage
            raise Broken(f"is truncated or damaged ({error})") from None
        if array.ndim != 2 or array.dtype.kind not in "iuf":
            raise Broken(f"has features of {array.shape} {array.dtype}, not n x D numbers")
        return array

    def _info(self, name: str) -> dict[Any, Any]:
        file = self.folder / f"{name}{END}"
        try:
            if file.stat().st_size > LIMIT:
                raise Broken("has an info of more bytes than one of a picture takes")
            with file.open("rb") as stream:
                old = npy.read_magic(stream) == (1, 0)
                (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(stream)
                found = unpickle.load(stream)
            (info,) = found.values
        except Broken:
            raise
        except Exception as error:  # pickle raises nearly anything on damage
            raise Broken(f"has an info that is damaged ({' '.join(str(error).split())})") from None
        if not isinstance(info, dict):
            raise Broken("has an info that is no dictionary")
        return info


_SIZE = (("image_width", "image_w"), ("image_height", "image_h"))


def _numbers(info: dict[Any, Any], *names: str) -> NDArray[Any]:
    """Raises Broken unless one of the names is there, and holds numbers."""
    for name in names:
        if name in info:
            try:
                return unpickle.as_numbers(info[name])
            except ValueError:
                raise Broken(f"has no numbers in {name} of its info") from None
    raise Broken(f"has no {names[0]} in its info")
