"""A folder of plain arrays, one row a picture, named as in the feature file.

    paths.txt             N lines: the pictures
    features.npy          N x K x D, or N x D: one region, the whole picture
    boxes.npy             N x K x 4, (x1, y1, x2, y2) in pixels
    sizes.npy             N x 2, width and height; without it, the pictures are asked
    count.npy             N, real regions; without it, all K
    scores.npy            N x K, confidences; without it, rows are in order
    classes.npy  attributes.npy  attribute_scores.npy     N x K

paths.txt, features.npy and, unless a region is the whole picture, boxes.npy must be there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cqr.errors import UserError, reason, scarcity
from cqr.listing import Failure, lines
from cqr.pipeline.imports.source import EXTRAS, Broken, Entry, Found, Kind


class Arrays:
    """A folder of arrays; see the module.  They are mapped, not read.

    Raises:
        UserError: one is missing, cannot be read, or has not the shape that others need.
    """

    format = "arrays"
    notes: ClassVar[list[str]] = []

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = lines(folder / "paths.txt")
        while self.paths and not self.paths[-1]:
            self.paths.pop()
        features = self._load("features")
        if features is None or features.ndim not in (2, 3):
            raise UserError(f"{folder / 'features.npy'} must be N x K x D or N x D")
        self.alone = features.ndim == 2
        self.features = features[:, None] if self.alone else features
        n, k, self.dim = self.features.shape
        if n != len(self.paths):
            raise UserError(
                f"{folder / 'paths.txt'} names {len(self.paths)} pictures, but features.npy holds"
                f" {n}; each row needs its line"
            )
        self.boxes = self._shaped("boxes", n, k, 4)
        if self.boxes is None and not self.alone:
            raise UserError(f"{folder} has no boxes.npy; it is needed where a picture has regions")
        self.sizes = self._shaped("sizes", n, 2, kinds="iu")
        self.sized = self.sizes is not None
        self.count = self._shaped("count", n, kinds="iu")
        self.scores = self._shaped("scores", n, k)
        named = {name: self._shaped(name, n, k) for name in EXTRAS}
        self.extras = {name: array for name, array in named.items() if array is not None}

    def close(self) -> None: ...

    def entries(self) -> Iterator[Entry | Failure]:
        kind = Kind(self.dim, tuple(self.extras), self.scores is not None)
        for row, path in enumerate(self.paths):
            note = f"row {row}"
            if not path.strip() or "\0" in path:
                yield Failure(f"paths.txt:{row + 1}", f"has no name ({note})")
            else:
                yield Entry(path, row, note, self._count(row), kind)

    def read(self, entry: Entry) -> Found:
        row, n = entry.place, entry.regions
        if n > self.features.shape[1]:
            raise Broken(f"has a count of {n}, but {self.features.shape[1]} rows")
        return Found(
            features=self.features[row, :n],
            boxes=None if self.boxes is None else self.boxes[row, :n],
            confidence=None if self.scores is None else self.scores[row, :n],
            extras={name: array[row, :n] for name, array in self.extras.items()},
            size=None if self.sizes is None else (int(self.sizes[row, 0]), int(self.sizes[row, 1])),
        )

    def _count(self, row: int) -> int:
        return self.features.shape[1] if self.count is None else int(self.count[row])

    def _load(self, name: str, kinds: str = "iuf") -> NDArray[Any] | None:
        file = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged header makes numpy raise nearly anything
            raise UserError(
                f"{file} cannot be read ({scarcity(error) or reason(error)}); is it whole?"
            ) from None
        if array.dtype.kind not in kinds:
            what = "numbers" if "f" in kinds else "integers"
            raise UserError(f"{file} holds {array.dtype}, not {what}")
        return array

    def _shaped(self, name: str, *shape: int, kinds: str = "iuf") -> NDArray[Any] | None:
        array = self._load(name, kinds)
        if array is not None and self.alone and len(shape) > 1 and array.ndim == len(shape) - 1:
            array = array[:, None]  # one region a picture, without an axis for it
        if array is not None and array.shape != shape:
            raise UserError(
                f"{self.folder / f'{name}.npy'} is {array.shape}, but features.npy needs {shape}"
            )
        return array
