"""A detector for tests: colour statistics on a 4 x 4 grid.  Runs as a command, too.

python tests/shared/fake_detector.py extract --images DIR ...  the real command line with it
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cqr.errors import UserError
from cqr.pipeline.detectors import Choice, DetectorSpec
from cqr.pipeline.regions import Regions

DIM = 6
CELLS = 4
RED = (255, 0, 0)  # a picture of this colour makes the detector raise


class FakeDetector:
    """Means and deviations of the colours of each cell, the brightest cell first."""

    dim = DIM
    max_k = 24
    prepare = None

    def __init__(self, config: str | None):
        self.config = config
        self.seen = 0
        self.identity = {"name": "fake", "config": config if config == "other" else None}

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        return (32, 16) if width > height else (16, 32)

    def fraction(self, width: int, height: int) -> int:
        return 1

    def check_k(self, k: int) -> None:
        if not 1 <= k <= self.max_k:
            raise UserError(f"--k {k} is not 1 to {self.max_k}")

    def __call__(self, pictures: list[np.ndarray], k: int) -> list[Regions]:
        if len({self.network_size(p.shape[1], p.shape[0]) for p in pictures}) != 1:
            raise ValueError("pictures of different network sizes")
        if log := os.environ.get("FAKE_LOG"):
            with open(log, "a") as stream:
                stream.write("x\n" * len(pictures))
        if "FAKE_SLOW" in os.environ:
            time.sleep(0.01 * len(pictures))
        if "FAKE_HOLD" in os.environ and self.seen >= int(os.environ["FAKE_HOLD"]):
            time.sleep(60)  # until a signal comes, which the test sends
        self.seen += len(pictures)
        return [self._regions(picture, k) for picture in pictures]

    def _regions(self, picture: np.ndarray, k: int) -> Regions:
        if self.config == "memory":
            raise MemoryError("cannot allocate")
        if (picture == RED).all() or self.config == "broken":
            raise RuntimeError("too red\nfor me")
        height, width = picture.shape[:2]
        xs = np.linspace(0, width, CELLS + 1).astype(np.float32)
        ys = np.linspace(0, height, CELLS + 1).astype(np.float32)
        found = []
        for i in range(CELLS * CELLS):
            x1, x2 = xs[i % CELLS : i % CELLS + 2]
            y1, y2 = ys[i // CELLS : i // CELLS + 2]
            cell = picture[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1]
            found.append((_statistics(cell), (x1, y1, x2, y2), cell.mean() / 255))
        found.sort(key=lambda cell: -cell[2])
        found = found[:k]
        features, boxes, scores = (np.zeros((k, *s), np.float32) for s in ((DIM,), (4,), ()))
        for i, (feature, box, score) in enumerate(found):
            features[i], boxes[i], scores[i] = feature, box, score
        if self.config == "huge" and width == 5:
            features[0, 0] = 1e5
        whole = _statistics(picture)
        return Regions(features, boxes, scores, len(found), whole, width, height)


def _statistics(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(-1, 3).astype(np.float64)
    return np.concatenate([flat.mean(0), flat.std(0)]).astype(np.float32)


@dataclass(frozen=True)
class FakeSpec(DetectorSpec):
    name: str = "fake"
    device: str = "cpu"

    def load(self) -> FakeDetector:
        return FakeDetector(self.config)


def picture_files(folder: Path, number: int, seed: int = 0) -> None:
    """Small noise pictures, upright and wide, as p000.png, ..."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(number):
        shape = (12, 8, 3) if i % 3 else (8, 12, 3)
        pixels = random.integers(0, 255, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"p{i:03d}.png")


if __name__ == "__main__":
    import cqr.cli
    import cqr.pipeline.extract

    cqr.pipeline.extract.choose = lambda folder, device: Choice(FakeSpec(), "it is a test")
    sys.argv[0] = "cqr"
    cqr.cli.main()
