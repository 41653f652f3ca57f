"""What a network's 16 bits change of features, beside its 32: of float16, and of bfloat16.

    python benchmarks/quality/sixteen_bits.py --images photos --detector grid [--number 40]

The first NUMBER pictures of a folder, K 36, on a CPU, which rounds as a GPU does: how many regions
have the same box (no corner more than a pixel away), and of these the cosines of their features.
`cqr extract --runtime fp16` is the first; a backbone is asked for by --config.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from cqr.listing import find
from cqr.pipeline import images
from cqr.pipeline.detectors import DetectorSpec, runtimes

K = 36


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", default="grid")
    parser.add_argument("--config")
    parser.add_argument("--number", type=int, default=40)
    o = parser.parse_args()
    spec = DetectorSpec(o.detector, o.config, device="cpu", accept_licence=True)
    pictures = [images.decode(o.images / path) for path in find(o.images)[0][: o.number]]
    exact = spec.load()
    expected = [exact([picture], K)[0] for picture in pictures]
    for half in (torch.float16, torch.bfloat16):
        runtimes.HALF = half
        detector = spec.load()
        runtimes.halve(detector)
        same, cosines = 0, []
        for picture, one in zip(pictures, expected, strict=True):
            (two,) = detector([picture], K)
            boxes, others = one.boxes[: one.count], two.boxes[: two.count]
            away = np.abs(boxes[:, None] - others[None]).max(-1)
            near = away.min(1) <= 1
            same += int(near.sum())
            a, b = one.features[: one.count][near], two.features[away.argmin(1)[near]]
            cosines += torch.cosine_similarity(*map(torch.from_numpy, (a, b))).tolist()
        regions, found = sum(one.count for one in expected), np.array(cosines)
        print(
            f"{half}: {same} of {regions} regions have the same box; cosines {found.mean():.6f}"
            f" in the mean, {found.min():.6f} the least, {(found < 0.999).mean():.1%} below 0.999"
        )


if __name__ == "__main__":
    main()
