"""Which input size and layer of EfficientNet-Lite0 tell labelled photographs apart best.

    python benchmarks/quality/grid_features.py IMAGES LABELS.csv

LABELS.csv has a column `image` (the file's name without its suffix) and a column
`label`.  For each choice: the share of pictures whose nearest neighbour by the
whole picture's feature (cosine) has the same label, and the mean average
precision, beside what chance gives.  The choices of
`cqr.pipeline.detectors.efficientnet` are marked.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from cqr.pipeline.detectors import efficientnet
from cqr.pipeline.detectors.regional import antialiased

SHAPES = ("own", "square")
SIDES = (160, 224, 288, 352)
BLOCKS = (10, 14, 15)  # of 16; strides 16, 32, 32


def features(encoder, pictures, side, shape):
    """The average over the picture of each layer: {layer: N x channels}."""
    averages: dict[str, list[torch.Tensor]] = {}

    def keep(layer):
        return lambda *a: averages.setdefault(layer, []).append(a[2].mean((0, 2, 3)))

    blocks = [block for stage in encoder.network.blocks for block in stage]
    hooks = [blocks[i].register_forward_hook(keep(f"block {i}")) for i in BLOCKS]
    for picture in pictures:
        height, width = picture.shape[:2]
        ratio = (width / height) ** 0.5 if shape == "own" else 1.0
        size = tuple(max(1, round(side * r / 32)) * 32 for r in (ratio, 1 / ratio))
        pixels = antialiased(picture, size)[None].float()
        keep("last")(None, None, encoder.encode(pixels))
    for hook in hooks:
        hook.remove()
    return {layer: torch.stack(rows).numpy() for layer, rows in averages.items()}


def scores(similar, labels):
    """Share of right nearest neighbours and mean average precision, each leaving itself out."""
    np.fill_diagonal(similar, -np.inf)
    right = labels[np.argsort(-similar, axis=1)[:, :-1]] == labels[:, None]
    precision = right.cumsum(1) / np.arange(1, right.shape[1] + 1)
    return right[:, 0].mean(), np.mean([p[r].mean() for p, r in zip(precision, right, strict=True)])


def main(folder, table):
    with open(table, encoding="utf-8", newline="") as file:
        label = {row["image"]: row["label"] for row in csv.DictReader(file)}
    paths = sorted(p for p in Path(folder).iterdir() if p.stem in label)
    labels = np.array([label[p.stem] for p in paths])
    pictures = [np.asarray(ImageOps.exif_transpose(Image.open(p)).convert("RGB")) for p in paths]
    encoder = efficientnet.encoder(None, torch.device("cpu"))
    random = np.random.default_rng(0)
    by_chance = [scores(random.random((len(paths),) * 2), labels) for _ in range(100)]
    print(f"{len(paths)} pictures, {len(set(labels))} labels; nearest right, mean AP")
    print("{:28s}{:6.3f}{:7.3f}".format("chance", *np.mean(by_chance, axis=0)))
    for shape in SHAPES:
        for side in SIDES:
            for layer, rows in features(encoder, pictures, side, shape).items():
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                chosen = (shape, side, layer) == ("own", efficientnet.SIDE, "last")
                name = f"{shape} shape, {side}², {layer}"
                result = "{:28s}{:6.3f}{:7.3f}".format(name, *scores(rows @ rows.T, labels))
                print(result + (" <- chosen" if chosen else ""), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        main(*sys.argv[1:])
