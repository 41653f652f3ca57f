"""New pictures as regions, by the detector that made a feature file and by no other."""

import json
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cqr.errors import UserError
from cqr.pipeline import images
from cqr.pipeline.detectors import NAMES, Detector, DetectorSpec, Picture
from cqr.pipeline.feature_file import FeatureFile
from cqr.pipeline.regions import Regions
from cqr.search.question import Reference
from cqr.search.world import Sight, World
from cqr.trainer.features import RegionBatch, RegionReader


class NewPictures:
    """Pictures as the rows of a feature file would be; may be used by several threads.

    The detector is loaded when it is first needed, or by `load` before.

    Attributes:
        absent: why the detector could not be had; "" where nobody has tried, or it could.

    Args:
        reader: of the feature file, as the model is given it.
        weights: where the detector's weights lie; None for where they lay.
        device: as `cqr extract --device`.
    """

    def __init__(self, reader: RegionReader, weights: Path | None, device: str) -> None:
        self._reader, self._file = reader, reader.file
        self._weights, self._device = weights, device
        self._detector: Detector | None = None
        self._world: World | None = None
        self._lock = threading.Lock()
        self._since: float | None = None
        self.absent = ""

    @property
    def loading(self) -> float | None:
        """Seconds for which the detector is being loaded by now; None where it is not."""
        return None if self._since is None else time.monotonic() - self._since

    def load(self) -> None:
        """Load the detector, if it is not there yet.

        Raises:
            UserError: it cannot be had.
        """
        with self._lock:
            if self._detector is not None:
                return
            self._since = time.monotonic()
            try:
                self._detector = detector(self._file, self._weights, self._device)
                self.absent = ""
            except UserError as error:
                self.absent = str(error)
                raise
            finally:
                self._since = None

    def reference(
        self, picture: Picture | bytes | Path, name: str, source: bytes | None = None
    ) -> Reference:
        """Find the regions of a picture, decoding it first if it is not yet.

        Args:
            picture: pixels, a picture file, or its bytes.
            name: what to call it in messages.
            source: the file that pixels were decoded from: where the features were made of JPEGs
                decoded at a fraction of their size, this one is, too.

        Raises:
            UserError: it is no picture that can be used, or the detector that made the
                features cannot be had.
        """
        began = time.perf_counter()
        self.load()
        assert self._detector is not None
        loaded = time.perf_counter()
        try:
            pixels, size = _decoded(picture, source, self._detector.fraction)
        except images.Refused as error:
            raise UserError(f"{name} {error}: give another picture") from None
        decoded = time.perf_counter()
        with self._lock:  # one at a time: memory, and cores, are for one
            started = time.perf_counter()
            (regions,) = self._detector([pixels], self._file.k)
        found = time.perf_counter()
        regions = regions.resized(*size)
        waited = loaded - began + started - decoded
        seconds = {"decode": decoded - loaded, "load": waited, "detect": found - started}
        seen, every = (region_batch(regions, r) for r in (self._reader, parts_of(self._reader)))
        return Reference(name, seen, None, seconds, every, self._sight(regions))

    def _sight(self, regions: Regions) -> Sight:
        with self._lock:
            self._world = self._world or World.of(self._reader)
        return self._world.sight(regions)


def _decoded(
    picture: Picture | bytes | Path, source: bytes | None, fraction: images.Fraction
) -> tuple[Picture, tuple[int, int]]:
    """The pixels that a detector takes, and the (width, height) of the picture.

    Raises:
        Refused: it is no picture that can be used.
    """
    if isinstance(picture, np.ndarray):
        height, width = picture.shape[:2]
        if source is None or fraction(width, height) == 1:
            return picture, (width, height)
        picture = source
    made = images.decoded(picture, fraction=fraction)
    return made.pixels, made.size


def parts_of(reader: RegionReader) -> RegionReader:
    """A reader of every region of the same pictures, whatever the model is given of them."""
    return reader.seen_as("regions", reader.k if reader.kind == "regions" else None)


def region_batch(regions: Regions, reader: RegionReader) -> RegionBatch:
    """A batch of one, as `reader.gather` would give it of a file that holds these regions.

    Raises:
        UserError: a feature is too large for the file's float16.
    """
    if reader.kind == "whole":
        features, boxes, count = regions.whole[None], np.array([[0, 0, 1, 1]], np.float32), 1
    else:
        count = min(regions.count, reader.k)
        size = np.array([regions.width, regions.height] * 2, np.float32)
        features, boxes = regions.features[:count], regions.boxes[:count] / size
    with np.errstate(over="ignore"):
        stored, whole = features.astype(np.float16), regions.whole.astype(np.float16)
    if not (np.isfinite(stored).all() and np.isfinite(whole).all()):
        raise UserError("a feature of the picture is more than float16 holds: give another picture")
    batch = RegionBatch(
        *(torch.from_numpy(a[None].copy()) for a in (stored, boxes, np.ones(count, bool)))
    )
    if reader.whole:
        batch.whole = torch.from_numpy(whole[None].copy())
    return batch


def detector(file: FeatureFile, weights: Path | None = None, device: str = "auto") -> Detector:
    """The detector that made a feature file.

    Raises:
        UserError: no detector of this package made it, or it cannot be had, or it is another
            by now: other weights, another version.
    """
    was = file.detector
    name = was.get("name")
    if name not in NAMES:
        raise UserError(
            f"the regions in {file.path} were made elsewhere ({name}): start from a picture that "
            "is in it"
        )
    spec = DetectorSpec.of(
        was, weights or _named(file, "--weights"), device, _named(file, "--finder-weights")
    )
    try:
        made = spec.load()
    except UserError as error:
        raise UserError(
            f"a new picture needs the detector that made {file.path}, {name}: {error}"
        ) from error
    by_torch = {key: value for key, value in was.items() if key != "runtime"}
    _check_same(by_torch, json.loads(json.dumps(made.identity)), file)
    return made


def _named(file: FeatureFile, option: str) -> Path | None:
    """The file of weights that the command of the extraction named, if it did."""
    words = shlex.split(file.header.command)
    return Path(words[words.index(option) + 1]) if option in words[:-1] else None


def _check_same(was: dict[str, Any], now: dict[str, Any], file: FeatureFile) -> None:
    if was == now:
        return
    differ = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    said = ", ".join(
        f"{key} was {_short(was.get(key))}, is {_short(now.get(key))}" for key in differ
    )
    raise UserError(
        f"the detector that made {file.path} is not the one that is here ({said}): bring that one "
        "back (--weights FILE), extract the pictures again with this one, or start from a picture "
        "that is in it"
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:16]}..."
