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
from cqr.listing import Failure
from cqr.pipeline.imports.source import Broken, Entry, Found, Kind, file_by_file

END = "_info.npy"
LIMIT = 2**28
"""Bytes of a file."""


class Mmf:
    """Such a folder; see the module.

    Args:
        files: below it, the pairs among them.
        unreadable: folders below it that cannot be listed.
    """

    format = "mmf"
    sized = True
    notes: ClassVar[list[str]] = []

    def __init__(self, folder: Path, files: list[str], unreadable: list[Failure]):
        self.folder = folder
        self.names = [name.removesuffix(END) for name in files if name.endswith(END)]
        self.unreadable = unreadable

    def close(self) -> None: ...

    def entries(self) -> Iterator[Entry | Failure]:
        yield from self.unreadable
        yield from file_by_file(self.names, self._look)

    def _look(self, name: str) -> Entry:
        found = self._read(name)
        kind = Kind(found.features.shape[1], tuple(found.extras), ranked=False)
        return Entry(name, name, "", len(found.features), kind)

    def read(self, entry: Entry) -> Found:
        return self._read(entry.place)

    def _read(self, name: str) -> Found:
        info = self._info(name)
        features = self._features(name)
        boxes = _numbers(info, "bbox")
        width, height = (_whole(info, *names) for names in _SIZE)
        n = _whole(info, "num_boxes") if "num_boxes" in info else len(features)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not 0 < n <= min(len(boxes), len(features)):
            raise Broken(f"has {len(features)} features, {n} of them real, but boxes {boxes.shape}")
        classes = _numbers(info, "objects") if "objects" in info else None
        fit = classes is not None and classes.ndim == 1 and len(classes) >= n
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


def _whole(info: dict[Any, Any], *names: str) -> int:
    """Raises Broken unless one of the names is there, and holds one whole number."""
    found = _numbers(info, *names)
    if found.size != 1 or not float(found.item()).is_integer():
        raise Broken(f"has no whole number in {names[0]} of its info")
    return int(found.item())


def _numbers(info: dict[Any, Any], *names: str) -> NDArray[Any]:
    """Raises Broken unless one of the names is there, and holds numbers."""
    for name in names:
        if name in info:
            try:
                return unpickle.as_numbers(info[name])
            except ValueError:
                raise Broken(f"has no numbers in {name} of its info") from None
    raise Broken(f"has no {names[0]} in its info")
