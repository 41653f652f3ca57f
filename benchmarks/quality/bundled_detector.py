"""How well the bundled detector finds and describes objects that it was not trained on.

python benchmarks/quality/bundled_detector.py [--layout crowd] [--scenes DIR] [--weights FILE]
                                               [--threads 1]

Takes the test split of a folder of generated scenes, which has colour-shape
pairs that training never shows; without --scenes it makes one of 1,000 test
scenes, of crowds of 200.  Of a crowd, things of which less than a quarter is
seen are not to be found.  A detection is right if it overlaps a true box by half
(intersection over union) that no more certain detection has taken.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cqr.pipeline.detectors import DetectorSpec
from cqr.pipeline.detectors.bundled import words
from cqr.pipeline.detectors.bundled_training import LEAST_SEEN
from cqr.pipeline.detectors.regional import RegionDetector
from cqr.scenes.generate import Settings, generate

K = 36, 48
"""Of a scene on the grid, and of a crowd, which has up to 40 things."""
BATCH = 16
KINDS = {"3D picture": ("file", "box"), "drawing": ("drawing", "drawing_box")}
"""The names, in a scenes folder, of the picture and of the boxes in it."""
ATTRIBUTES = "color", "shape", "size"

Floats = NDArray[np.floating[Any]]


def overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union of n x 4 and m x 4 boxes, n x m."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared)


def match(boxes: Floats, truth: Floats, least: float) -> NDArray[np.int64]:
    """The true box that each detection finds, or -1.  Detections come most certain first."""
    free = np.ones(len(truth), bool)
    found = np.full(len(boxes), -1)
    for i, row in enumerate(overlap(boxes, truth)):
        fits = np.where(free, row, 0.0)
        if len(truth) and fits.max() >= least:
            found[i] = fits.argmax()
            free[found[i]] = False
    return found


def average_precision(scores: Floats, right: NDArray[np.bool_], truths: int) -> float:
    """Area under precision over recall, each precision the best at that recall or above.

    Args:
        scores: of all detections in all pictures.
        right: which of them found a true box.
        truths: how many there are to find.
    """
    hits = right[np.argsort(-scores, kind="stable")]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best[hits].sum() / truths)


@dataclass
class Tally:
    """What was found in one kind of picture, picture by picture."""

    scores: list[Floats] = field(default_factory=list)
    right: dict[float, list[NDArray[np.bool_]]] = field(default_factory=lambda: {0.5: [], 0.75: []})
    truths: int = 0
    described: dict[bool, list[list[bool]]] = field(default_factory=lambda: {True: [], False: []})
    """For each object found, by whether its pair was in training: which attributes are right."""
    seconds: float = 0.0
    pictures: int = 0


def measure(
    detector: RegionDetector, k: int, folder: Path, file: str, box: str, known: set[tuple[str, str]]
) -> Tally:
    images = json.loads((folder / "test.json").read_bytes())["images"]
    tally = Tally()
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        pictures = [np.asarray(Image.open(folder / image[file]).convert("RGB")) for image in batch]
        began = time.perf_counter()
        found = detector(pictures, k)
        tally.seconds += time.perf_counter() - began
        tally.pictures += len(batch)
        for image, regions in zip(batch, found, strict=True):
            objects = [one for one in image["objects"] if seen(one)]
            real = regions.scores > 0  # where nothing is found there is one region, without score
            boxes, truth = regions.boxes[real], np.array([o[box] for o in objects]).reshape(-1, 4)
            tally.scores.append(regions.scores[real])
            tally.truths += len(truth)
            for least, right in tally.right.items():
                right.append(match(boxes, truth, least) >= 0)
            said = words(regions.features[real])
            assert said is not None  # no "visual"
            for i, j in enumerate(match(boxes, truth, 0.5)):
                if j >= 0:
                    one = objects[j]
                    tally.described[(one["color"], one["shape"]) in known].append(
                        [said[i][name] == one[name] for name in ATTRIBUTES]
                    )
    return tally


def seen(one: dict[str, Any]) -> bool:
    """Whether an object is to be found: on the grid nothing hides another."""
    return one.get("visible") is None or one["visible"] >= LEAST_SEEN


def report(name: str, tally: Tally) -> None:
    scores = np.concatenate(tally.scores)
    right = {least: np.concatenate(each) for least, each in tally.right.items()}
    precision = {least: average_precision(scores, r, tally.truths) for least, r in right.items()}
    print(
        f"{name}: {tally.pictures} pictures, {tally.truths} objects, "
        f"{len(scores) / tally.truths:.3f} detections an object, "
        f"{1000 * tally.seconds / tally.pictures:.1f} ms a picture\n"
        f"  AP@0.5 {precision[0.5]:.4f}   AP@0.75 {precision[0.75]:.4f}   "
        f"recall@0.5 {right[0.5].sum() / tally.truths:.4f}"
    )
    print(f"  {'attributes right':20}{''.join(f'{a:>8}' for a in ATTRIBUTES)}     all   objects")
    for known, label in ((True, "pairs of training"), (False, "unseen pairs")):
        table = np.array(tally.described[known])
        shares = [*table.mean(axis=0), table.all(axis=1).mean()]
        print(f"  {label:20}{''.join(f'{share:8.4f}' for share in shares)}{len(table):10}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--layout", choices=("grid", "crowd"), default="grid")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    crowd = options.layout == "crowd"
    spec = DetectorSpec("bundled", "crowd" if crowd else None, options.weights, device="cpu")
    detector = spec.load()
    assert isinstance(detector, RegionDetector)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.scenes or Path(temporary) / "scenes"
        if options.scenes is None:
            settings = Settings(seed=2, references=250, modifications=3)
            if crowd:
                settings = Settings(
                    seed=2, references=100, modifications=1, drawings=False, layout="crowd"
                )
            generate(folder, settings, workers=2)
        pairs = json.loads((folder / "scenes.json").read_bytes())["pairs"]["train"]
        known = {tuple(pair) for pair in pairs}
        for name, (file, box) in list(KINDS.items())[: 1 if crowd else 2]:
            report(name, measure(detector, K[crowd], folder, file, box, known))


if __name__ == "__main__":
    main()
