"""How a backbone should see a picture: squashed to its square, or by the model's own preprocessing.

    python benchmarks/quality/views.py IMAGES LABELS.csv --detector transformers --config NAME
    python benchmarks/quality/views.py IMAGES LABELS.csv   # the EfficientNet-Lite0 of a package

LABELS.csv has a column `image` (the file's name without its suffix) and a column `label`; others by
--columns IMAGE LABEL.  For each view: the share of pictures whose nearest neighbour (cosine) has
the same label, and the mean average precision, by the whole picture's feature and by the average of
its 9 cells; beside what chance gives.  A picture whose label no other has is left out.  A CLIP is
also asked by the value path (`values`), which changes the cells alone.
"""

import argparse
import csv
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from grid_features import scores
from safetensors.torch import save_file

from cqr.errors import UserError
from cqr.pipeline import images
from cqr.pipeline.detectors import BACKBONES, DetectorSpec, efficientnet
from cqr.pipeline.detectors.weights import read

CELLS, BATCH = 9, 8
VIEWS = ("", "own", "values")


def features(spec: DetectorSpec, paths: list[Path]) -> dict[str, np.ndarray]:
    """Unit vectors, N x D, of the whole pictures and of the averages of their cells."""
    detector = spec.load()
    found: dict[str, list[np.ndarray]] = {"whole": [], "cells": []}
    groups: dict[tuple[int, int], list[int]] = {}
    pictures = [images.decode(path) for path in paths]
    for i, picture in enumerate(pictures):
        size = detector.network_size(picture.shape[1], picture.shape[0])
        groups.setdefault(size, []).append(i)
    order = []
    for members in groups.values():
        for first in range(0, len(members), BATCH):
            batch = members[first : first + BATCH]
            order += batch
            for regions in detector([pictures[i] for i in batch], CELLS):
                found["whole"].append(regions.whole)
                found["cells"].append(regions.features.mean(0))
    vectors = {name: np.stack(rows)[np.argsort(order)] for name, rows in found.items()}
    return {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in vectors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--columns", nargs=2, default=("image", "label"))
    parser.add_argument("--detector", choices=BACKBONES, default="timm")
    parser.add_argument("--config", help="the model; EfficientNet-Lite0 if it is not given")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every Nth picture")
    options = parser.parse_args()
    image, label = options.columns
    with options.labels.open(encoding="utf-8", newline="") as file:
        named = {Path(row[image]).stem: row[label] for row in csv.DictReader(file)}
    paths = sorted(path for path in options.images.iterdir() if path.stem in named)
    paths = paths[:: options.every]
    often = Counter(named[path.stem] for path in paths)
    paths = [path for path in paths if often[named[path.stem]] > 1]
    labels = np.array([named[path.stem] for path in paths])
    _, counts = np.unique(labels, return_counts=True)
    chance = (counts * (counts - 1)).sum() / len(labels) / (len(labels) - 1)
    print(f"{len(labels)} pictures, {len(counts)} labels, chance {chance:.3f}")
    with tempfile.TemporaryDirectory() as scratch:
        if options.config is None:
            options.config, options.weights = packaged(Path(scratch))
        compare(options, paths, labels)


def packaged(scratch: Path) -> tuple[str, Path]:
    """The network whose weights come in a package, by timm's name, and a file of its weights."""
    state = efficientnet.as_timm_names(read(efficientnet.packaged()))
    path = scratch / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return "tf_efficientnet_lite0", path


def compare(options: argparse.Namespace, paths: list[Path], labels: np.ndarray) -> None:
    for view in VIEWS:
        config = f"{options.config}#{view}" if view else options.config
        try:
            made = features(DetectorSpec(options.detector, config, options.weights, "cpu"), paths)
        except UserError as error:
            print(f"{view}: {error}")
            continue
        for name, vectors in made.items():
            nearest, precision = scores(vectors @ vectors.T, labels)
            print(f"{view or 'squashed'}, {name}: nearest {nearest:.3f}, mAP {precision:.3f}")


if __name__ == "__main__":
    main()
