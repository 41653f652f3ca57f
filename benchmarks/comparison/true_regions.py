"""A feature file of what generated scenes really hold, in place of what a detector found.

    python benchmarks/comparison/true_regions.py FASHION artifacts/true.h5
    cqr train --features artifacts/true.h5 --data FASHION

A region is an object: its box, and its colour, shape and size as 13 numbers (17 of a crowd), 1
where true.  What a model reaches on it is not limited by the detector; what it lacks there, the
model lacks.  No pictures are needed (`cqr scenes --no-pictures`).

Of a crowd, regions are in the order of how much is seen of them, and what is hidden but for a
twentieth is none; so K regions are the K that are seen best, and it is printed how many that is.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cqr.scenes.crowd import SHAPES as CROWD_SHAPES
from cqr.scenes.protocol import COLORS, SHAPES, SIZES

SEEN = 0.05
KS = 9, 18, 36, 72


def scenes(folder):
    """Each picture and drawing: its path, size, boxes and objects."""
    size = json.loads((folder / "scenes.json").read_bytes())["image_size"]
    for split in ("train", "test"):
        for image in json.loads((folder / f"{split}.json").read_bytes())["images"]:
            yield image["file"], size, "box", by_sight(image["objects"])
            if image["drawing"]:
                yield image["drawing"], (64, 64), "drawing_box", image["objects"]


def by_sight(objects):
    """Those of a crowd that are seen, the most visible pixels first; of a grid all, as they are."""
    if not objects or "place" not in objects[0]:
        return objects
    seen = [one for one in objects if one["visible"] >= SEEN]
    return sorted(seen, key=lambda one: -one["visible"] * area(one["box"]))


def area(box):
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def main(folder, out):
    rows = list(scenes(folder))
    manifest = json.loads((folder / "scenes.json").read_bytes())
    shapes = CROWD_SHAPES if manifest.get("layout") == "crowd" else SHAPES
    known = {"color": COLORS, "shape": shapes, "size": SIZES}
    values = [(name, value) for name, some in known.items() for value in some]
    most = max(max(len(objects) for *_, objects in rows), 1)
    features = np.zeros((len(rows), most, len(values)), np.float32)
    boxes = np.zeros((len(rows), most, 4), np.float32)
    boxes[:, 0] = [(0, 0, *size) for _, size, _, _ in rows]  # an empty scene is one region
    for row, (_, _, box, objects) in enumerate(rows):
        for i, one in enumerate(objects):
            features[row, i] = [one[name] == value for name, value in values]
            boxes[row, i] = one[box]
    counts = np.array([len(objects) for *_, objects in rows])
    for k in KS:
        share = np.minimum(counts, k).sum() / max(counts.sum(), 1)
        print(f"K = {k} has {100 * share:.1f} % of {counts.sum():,} objects seen")
    with tempfile.TemporaryDirectory() as place:
        arrays = Path(place)
        (arrays / "paths.txt").write_text("".join(f"{path}\n" for path, *_ in rows))
        np.save(arrays / "features.npy", features)
        np.save(arrays / "boxes.npy", boxes)
        np.save(arrays / "sizes.npy", np.array([size for _, size, *_ in rows]))
        np.save(arrays / "count.npy", np.maximum(counts, 1))
        command = ["cqr", "import", arrays, "--out", out]
        if manifest.get("layout") == "crowd":
            command += ["--k", str(KS[-1])]
        if manifest.get("pictures", True):
            command += ["--images", folder]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
