"""A feature file of what generated scenes really hold, in place of what a detector found.

    python benchmarks/true_regions.py FASHION artifacts/true.h5
    cqr train --features artifacts/true.h5 --data FASHION

A region is an object: its box, and its colour, shape and size as 13 numbers, 1 where true.  What
a model reaches on it is not limited by the detector; what it lacks there, the model lacks.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cqr.pipeline.detectors.bundled import ATTRIBUTES

CELLS = 9


def scenes(folder):
    """Each picture and drawing: its path, size, boxes and objects."""
    for split in ("train", "test"):
        for image in json.loads((folder / f"{split}.json").read_bytes())["images"]:
            yield image["file"], (224, 168), "box", image["objects"]
            if image["drawing"]:
                yield image["drawing"], (64, 64), "drawing_box", image["objects"]


def main(folder, out):
    rows = list(scenes(folder))
    values = [(name, value) for name, known in ATTRIBUTES.items() for value in known]
    features = np.zeros((len(rows), CELLS, len(values)), np.float32)
    boxes = np.zeros((len(rows), CELLS, 4), np.float32)
    boxes[:, 0] = [(0, 0, *size) for _, size, _, _ in rows]  # an empty scene is one region
    for row, (_, _, box, objects) in enumerate(rows):
        for i, one in enumerate(objects):
            features[row, i] = [one[name] == value for name, value in values]
            boxes[row, i] = one[box]
    with tempfile.TemporaryDirectory() as place:
        arrays = Path(place)
        (arrays / "paths.txt").write_text("".join(f"{path}\n" for path, *_ in rows))
        np.save(arrays / "features.npy", features)
        np.save(arrays / "boxes.npy", boxes)
        np.save(arrays / "sizes.npy", np.array([size for _, size, *_ in rows]))
        np.save(arrays / "count.npy", np.array([max(1, len(r[3])) for r in rows]))
        command = ["cqr", "import", arrays, "--out", out, "--images", folder]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
