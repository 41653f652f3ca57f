"""Trains the bundled detector on a folder of generated scenes.

    cqr scenes --out scenes --references 5000 --modifications 1 --seed 1
    python -m cqr.pipeline.detectors.bundled_training --scenes scenes --out bundled.safetensors

Reads only the folder's train split, so the detector never sees a colour-shape
pair that is kept for testing.  Each batch mixes 3D pictures and drawings.

For crowds, which have no drawings, it starts from the weights for the grid:

    cqr scenes --layout crowd --out crowd --references 1000 --modifications 1 --seed 11
    python -m cqr.pipeline.detectors.bundled_training --scenes crowd --out crowd.safetensors \
        --start pipeline/weights/bundled.safetensors --steps 1800 --threads 1

In training each colour comes with some of the shapes alone, and a head that
learns "blue, so no circle" is right there and wrong at test.  Two things keep
the attributes apart.  Every second picture is recoloured, and trains all but
the colour head.  In the others an object's value competes only with values
that occur in training beside its other attributes (`rivals`).
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.pipeline.detectors.bundled import KINDS, Kind, Network
from cqr.pipeline.detectors.weights import read

STEPS = 4000
PICTURES, DRAWINGS, CROWDS = 6, 2, 4
"""Of each kind in a batch; crowds come alone."""
LEAST_SEEN = 0.25
"""Of a thing in a crowd, the share that is seen, below which it is no object to be found."""
RATE = 1.5e-3
WARM_UP = 100
DECAY = 1e-4
LARGEST_NORM = 5.0
BOX_NOISE = 0.03
"""Standard deviation, in box sides, of the edges of boxes that the attribute heads are
trained on: at work the boxes are the detector's own, which are not quite true."""


@dataclass(frozen=True)
class Example:
    """One picture and what is in it.

    Attributes:
        path: of an RGB picture.
        boxes: N x 4 float32, (x1, y1, x2, y2) in its pixels.
        attributes: for each of its kind's, N int64, indices into its values.
    """

    path: Path
    boxes: Tensor
    attributes: dict[str, Tensor]

    def picture(self) -> Tensor:
        """3 x H x W float32, 0 to 1."""
        with Image.open(self.path) as image:
            return torch.tensor(np.asarray(image.convert("RGB"))).permute(2, 0, 1) / 255


def kind_of(folder: Path) -> Kind:
    """Of the scenes in a folder made by `cqr scenes`.

    Raises:
        UserError: it is no such folder, or was made without pictures.
    """
    if not (folder / "scenes.json").is_file():
        raise UserError(f"{folder} is no finished folder of generated scenes: run cqr scenes first")
    manifest = json.loads((folder / "scenes.json").read_bytes())
    if not manifest.get("pictures", True):
        raise UserError(f"{folder} has no pictures: make it again without --no-pictures")
    return KINDS[manifest.get("layout", "grid")]


def examples(folder: Path, split: str) -> tuple[list[Example], list[Example]]:
    """The 3D pictures and the drawings (of crowds none) of one split of a folder of scenes.

    Raises:
        UserError: it is no such folder, or was made without pictures or drawings.
    """
    kind = kind_of(folder)
    images = json.loads((folder / f"{split}.json").read_bytes())["images"]
    pictures = [_example(folder, kind, image, "file", "box") for image in images]
    if kind is KINDS["crowd"]:
        return pictures, []
    if any(image["drawing"] is None for image in images):
        raise UserError(f"{folder} has no drawings: make it again without --no-drawings")
    return pictures, [_example(folder, kind, image, "drawing", "drawing_box") for image in images]


def _example(folder: Path, kind: Kind, image: dict[str, Any], file: str, box: str) -> Example:
    shares = [one.get("visible") for one in image["objects"]]  # None of a grid: all are seen
    objects = [
        one
        for one, share in zip(image["objects"], shares, strict=True)
        if share is None or share >= LEAST_SEEN
    ]
    return Example(
        folder / image[file],
        torch.tensor([one[box] for one in objects], dtype=torch.float32).reshape(-1, 4),
        {
            name: torch.tensor([values.index(one[name]) for one in objects], dtype=torch.int64)
            for name, values in kind.attributes.items()
        },
    )


def seen_together(pool: list[Example], kind: Kind) -> Tensor:
    """Which combinations of attributes occur: bool, an axis for each of the kind's in order."""
    seen = torch.zeros([len(values) for values in kind.attributes.values()], dtype=torch.bool)
    for one in pool:
        seen[tuple(one.attributes.values())] = True
    return seen


def rivals(seen: Tensor, attributes: dict[str, Tensor], name: str) -> Tensor:
    """Which values of an attribute occur beside the others of N objects: bool, N x values."""
    others = tuple(indices for other, indices in attributes.items() if other != name)
    return seen.movedim(list(attributes).index(name), -1)[others]


def recoloured(picture: Tensor) -> Tensor:
    """The picture with its channels exchanged and made lighter or darker, each by itself."""
    gains = 0.5 + torch.rand(3, 1, 1)
    return (picture[torch.randperm(3)] * gains).clamp(max=1)


def losses(network: Network, batch: list[Example], seen: Tensor) -> dict[str, Tensor]:
    """Each part of the loss: Faster R-CNN's four, and cross-entropy for each attribute.

    Every second picture of the batch is recoloured.
    """
    pictures = [
        one.picture() if i % 2 else recoloured(one.picture()) for i, one in enumerate(batch)
    ]
    targets = [
        {"boxes": one.boxes, "labels": torch.ones(len(one.boxes), dtype=torch.int64)}
        for one in batch
    ]
    images, targets = network.transform(pictures, targets)
    maps = network.backbone(images.tensors)
    proposals, rpn = network.rpn(images, maps, targets)
    heads = network.roi_heads
    _, detection = heads(maps, proposals, images.image_sizes, targets)
    boxes = [_shaken(target["boxes"]) for target in targets]
    features = heads.box_head(heads.box_roi_pool(maps, boxes, images.image_sizes))
    true_colour = torch.cat(
        [torch.full((len(one.boxes),), i % 2 == 1) for i, one in enumerate(batch)]
    )
    logits = {name: head(features) for name, head in network.attributes.items()}
    attributes = {name: torch.cat([one.attributes[name] for one in batch]) for name in logits}
    return {**rpn, **detection, **attribute_losses(logits, attributes, true_colour, seen)}


def attribute_losses(
    logits: dict[str, Tensor], attributes: dict[str, Tensor], true_colour: Tensor, seen: Tensor
) -> dict[str, Tensor]:
    """The cross-entropy of each attribute, for N objects.

    Args:
        logits: for each attribute, N x its values.
        attributes: for each attribute, N, the true ones.
        true_colour: N bool, false for objects of a recoloured picture.
        seen: see `seen_together`.
    """
    parts = {}
    for name, values in attributes.items():
        competing = rivals(seen, attributes, name) | ~true_colour[:, None]
        masked = logits[name].masked_fill(~competing, -torch.inf)
        each = functional.cross_entropy(masked, values, reduction="none")
        counted = true_colour if name == "color" else torch.ones_like(true_colour)
        parts[name] = (each * counted).sum() / counted.sum().clamp(min=1)
    return parts


def train(folder: Path, steps: int, seed: int, start: Path | None = None) -> Network:
    """A trained network, in eval mode; prints the losses as it goes.

    Args:
        folder: of scenes, which say of what kind the network is.
        steps: batches.
        seed: of everything drawn.
        start: weights to start from, of any kind: what fits of them is taken.
    """
    torch.manual_seed(seed)
    kind = kind_of(folder)
    pictures, drawings = examples(folder, "train")
    seen = seen_together(pictures, kind)
    rng = random.Random(seed)
    network = Network(kind)
    if start:
        _take(network, read(start))
    network.train()
    network.backbone.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    started, recent = time.monotonic(), dict[str, float]()
    for step, batch in enumerate(islice(_batches(pictures, drawings, rng), steps), 1):
        parts = losses(network, batch, seen)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), LARGEST_NORM)
        optimizer.step()
        schedule.step()
        for name, value in parts.items():
            now = float(value.detach())
            recent[name] = recent.get(name, now) * 0.98 + now * 0.02
        if step % 50 == 0 or step == steps:
            shown = " ".join(f"{n.removeprefix('loss_')} {v:.3f}" for n, v in recent.items())
            print(f"{time.monotonic() - started:6.0f} s  step {step}/{steps}  {shown}", flush=True)
    network.eval()
    return network


def save(network: Network, out: Path) -> None:
    """Write the weights as float16 safetensors."""
    state = {
        name: tensor.half().contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    with replacing(out) as temporary:
        save_file(state, temporary)


def _take(network: Network, state: dict[str, Tensor]) -> None:
    own = network.state_dict()
    fits = {n: t.float() for n, t in state.items() if n in own and own[n].shape == t.shape}
    network.load_state_dict({**own, **fits})


def _batches(
    pictures: list[Example], drawings: list[Example], rng: random.Random
) -> Iterator[list[Example]]:
    if not drawings:
        yield from _endless(pictures, CROWDS, rng)
    for first, second in zip(
        _endless(pictures, PICTURES, rng), _endless(drawings, DRAWINGS, rng), strict=True
    ):
        yield first + second


def _endless(pool: list[Example], size: int, rng: random.Random) -> Iterator[list[Example]]:
    """Batches; every example occurs once before any occurs again."""
    order: list[Example] = []
    while True:
        if len(order) < size:
            again = list(pool)
            rng.shuffle(again)
            order = again + order
        yield [order.pop() for _ in range(size)]


def _shaken(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + torch.randn_like(boxes) * sides * BOX_NOISE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=Path, required=True, help="made by cqr scenes")
    parser.add_argument("--out", type=Path, required=True, help="the weights to write")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        network = train(options.scenes, options.steps, options.seed, options.start)
        save(network, options.out)
    except UserError as error:
        parser.exit(1, f"Error: {error}\n")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
