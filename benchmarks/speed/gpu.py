"""What a GPU is used for, beside what it can do, in one run of under ten minutes.

    python benchmarks/speed/gpu.py --out docs/results/gpu.json
    python benchmarks/speed/gpu.py --device cpu --small   # the same steps, small: do they run?

`detector`   pictures a second of `cqr extract` with torchvision's R50-FPN v2, as it is and by
             `--runtime fp16`, over an eager loop of the bare network, one picture at a time:
             decode, to the device, forward.  Goal: 4.
`backbone`   pictures a second of `cqr extract` with open_clip's ViT-B/16 over the bare model's
             forward passes, on pictures that lie on the device, at its best batch; both as they
             are, and both in 16 bits.  Goal: 0.9.
             Of both also `--workers` 1, 2 and 4, by fp16: the rate between a quarter and nine
             tenths of the pictures, so without the start.
`training`   seconds an epoch of LBF over 16,000 queries, batch 512, of one training: the last of
             EPOCHS, without dropout, so that losses can be compared.  "mapped" copies each batch to
             the device, "resident" has all pictures there, as `cqr train` does where they fit;
             "compiled" is `cqr train --compile`; "batched" and "batched, compiled" divide by the
             SEEDS of `cqr compare --batched`.  Ratios are to "mapped".  Goal: 8.

Weights are random: what is timed does not depend on them, except that a detector of random
weights keeps as many boxes as suppression lets it, which is the dearer case.  Pictures are made
here, 640 x 480, as JPEG.  Each ratio is the median of rounds that alternate, after one that is
not counted; loading a model is in neither time.  `cosine` is the least of features of 16 bits and
those of 32, of ViT-B/16's cells: of a detector of random weights the boxes differ.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from extract import Loaded
from training import write

from cqr.machine import device_name, find_device
from cqr.pipeline import images
from cqr.pipeline.detectors import DetectorSpec, runtimes
from cqr.pipeline.extract import Job, Watcher, extract
from cqr.trainer.training.material import Wanted, collect
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.steps import resident
from cqr.trainer.training.train import train_seeds

K = 36


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pictures: of the extractions that alternate; by several workers there are four times as
            many.
        queries, batch, epochs: of the training; the last epoch is timed.
        batches: of the bare backbone, the best of which counts.
        seeds: that are trained as one batched model.
    """

    pictures: int
    rounds: int
    queries: int
    batch: int
    epochs: int
    batches: tuple[int, ...]
    seeds: int


FULL = Size(512, 3, 16_000, 512, 3, (64, 128, 256), 8)
SMALL = Size(2, 1, 128, 64, 2, (1, 2), 2)


def photographs(folder: Path, number: int) -> list[Path]:
    """Pictures with edges and areas, as those of a camera have; noise alone decodes slowly."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(number):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.jpg")
    return sorted(folder.iterdir())


def alternating(
    device: torch.device, rounds: int, **ways: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each way in each round; the round before the first is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if n:
                found[name].append(time.perf_counter() - began)
    return found


def extracting(folder: Path, spec: DetectorSpec, device: torch.device) -> Callable[[], object]:
    """One extraction into a new file, its detector loaded beforehand."""
    loaded = Loaded(spec.name, device=spec.device, detector=loaded_by(spec, device))

    def once() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            extract(Job(folder, Path(scratch, "x.h5"), K, loaded, workers=1))

    return once


def loaded_by(spec: DetectorSpec, device: torch.device) -> Any:
    """In 16 bits on a CPU, too, which the command refuses, so that this script can be tried."""
    if spec.runtime != runtimes.FP16 or device.type != "cpu":
        return spec.load()
    detector = replace(spec, runtime=runtimes.TORCH).load()
    runtimes.halve(detector)
    return detector


class Rate(Watcher):
    """Pictures a second between a quarter and nine tenths of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.total = 0

    def progress(self, done: int, total: int) -> None:
        self.seen.append((time.perf_counter(), done))
        self.total = total

    def value(self) -> float:
        inside = [(at, n) for at, n in self.seen if 0.25 * self.total <= n <= 0.9 * self.total]
        (began, first), (ended, last) = inside[0], inside[-1]
        return (last - first) / max(ended - began, 1e-9)


def by_workers(files: list[Path], spec: DetectorSpec) -> dict[str, float]:
    """Pictures a second of so many processes, each with a detector on the same device."""
    rates = {}
    with tempfile.TemporaryDirectory() as scratch:
        more = Path(scratch, "pictures")
        more.mkdir()
        for i in range(4):
            for file in files:
                (more / f"{i}-{file.name}").hardlink_to(file)
        for workers in (1, 2, 4):
            rate = Rate()
            out = Path(scratch, f"{workers}.h5")
            shard = max(1, len(files) // 16)
            extract(Job(more, out, K, spec, workers=workers, shard=shard), rate)
            rates[str(workers)] = round(rate.value(), 1)
    return rates


def detector(place: Path, files: list[Path], device: torch.device, size: Size) -> dict[str, Any]:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

    torch.manual_seed(0)
    network = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).eval()
    torch.save(network.state_dict(), place / "r50.pth")
    network.to(device)

    @torch.inference_mode()
    def eager() -> None:
        for path in files:
            picture = torch.tensor(images.decode(path)).permute(2, 0, 1).float() / 255
            for found in network([picture.to(device)]):
                found["boxes"].cpu()

    spec = DetectorSpec("torchvision", weights=place / "r50.pth", device=str(device))
    half = replace(spec, runtime=runtimes.FP16)
    folder = files[0].parent
    ways = {"cqr": extracting(folder, spec, device), "cqr, fp16": extracting(folder, half, device)}
    found = rates(alternating(device, size.rounds, bare=eager, **ways), len(files))
    found |= {name: over(found["bare"], found[name]) for name in ways}
    return told(found) | {"workers": by_workers(files, spec if device.type == "cpu" else half)}


def backbone(place: Path, files: list[Path], device: torch.device, size: Size) -> dict[str, Any]:
    import open_clip

    torch.manual_seed(0)
    name = "ViT-B-16"
    model = open_clip.create_model(name, pretrained=None).eval()
    torch.save(model.state_dict(), place / "b16.pt")
    model.to(device)
    pixels = torch.rand(max(size.batches), 3, 224, 224, device=device)
    times = max(1, len(files) // max(size.batches))

    @torch.inference_mode()
    def forward(batch: int, half: bool) -> None:
        with torch.autocast(device.type, torch.float16, enabled=half):
            for _ in range(times):
                for part in pixels.split(batch):
                    model.encode_image(part)

    spec = DetectorSpec("open_clip", name, place / "b16.pt", str(device), accept_licence=True)
    specs = {"cqr": spec, "cqr, fp16": replace(spec, runtime=runtimes.FP16)}
    found: dict[str, Any] = {}
    for way, half in (("cqr", False), ("cqr, fp16", True)):
        batches = {str(b): lambda b=b, half=half: forward(b, half) for b in size.batches}
        bare = rates(alternating(device, size.rounds, **batches), times * len(pixels))
        best = max(bare, key=lambda batch: statistics.median(bare[batch]))
        ours = extracting(files[0].parent, specs[way], device)
        mine = rates(alternating(device, size.rounds, cqr=ours), len(files))["cqr"]
        found[way.replace("cqr", f"bare, batch {best}")] = bare[best]
        found[way] = over(bare[best], mine)
    some = [images.decode(file) for file in files[:16]]
    one, two = (loaded_by(each, device)(some, K) for each in specs.values())
    cosine = min(
        float(torch.cosine_similarity(*map(torch.from_numpy, (a.features, b.features))).min())
        for a, b in zip(one, two, strict=True)
    )
    workers = by_workers(files, spec if device.type == "cpu" else specs["cqr, fp16"])
    return told(found) | {"cosine": round(cosine, 6), "workers": workers}


WAYS = {
    "mapped": {},
    "resident": {},
    "compiled": {"compile": True},
    "batched": {"seeds": True},
    "batched, compiled": {"seeds": True, "compile": True},
}


def training(place: Path, device: torch.device, size: Size) -> dict[str, Any]:
    steps = -(-size.queries // 64)  # what `write` makes is 64 queries a step
    write(place, 2_000, SimpleNamespace(k=K, dim=256, steps=steps))
    torch.set_num_threads(1)
    material = collect(place / "bench.h5", Wanted(place / "bench.queries.csv"))
    given = {"epochs": size.epochs, "batch": size.batch, "select": "last"}
    settings = settle(material.dataset.recommended, given, ["dropout=0"])
    found: dict[str, Any] = {"queries": 64 * steps, "batch": size.batch, "seeds": size.seeds}
    room = resident.room
    for name, way in WAYS.items():
        seeds = size.seeds if way.get("seeds") else 1
        if name == "mapped":
            resident.room = lambda device: 0
        runs = [
            start(material, replace(settings, seed=seed), folder=place / name)
            for seed in range(seeds)
        ]
        began = time.perf_counter()
        train_seeds(runs, material, device=str(device), compile=way.get("compile", False))
        whole = time.perf_counter() - began
        resident.room = room
        lines = runs[0].history()
        found[name] = {
            "seconds an epoch": lines[-1]["seconds"],
            "seconds of all": round(whole, 1),
            "losses of seed 0": [line["loss"] for line in lines],
        }
    mapped = found["mapped"]
    for name in WAYS:
        one = found[name]
        one["ratio"] = round(mapped["seconds an epoch"] / one["seconds an epoch"], 3)
        losses = zip(one["losses of seed 0"], mapped["losses of seed 0"], strict=True)
        one["losses apart"] = max(abs(a - b) for a, b in losses)
    return found


def rates(seconds: dict[str, list[float]], pictures: int) -> dict[str, list[float]]:
    """Pictures a second of each way in each round."""
    return {name: [pictures / one for one in each] for name, each in seconds.items()}


def over(bare: list[float], ours: list[float]) -> dict[str, list[float]]:
    """Of each round the rate, and how many times the bare network's."""
    return {"rate": ours, "ratio": [a / b for a, b in zip(ours, bare, strict=True)]}


def told(found: dict[str, Any]) -> dict[str, Any]:
    """Medians, of rates and of ratios."""
    if isinstance(found, list):
        return round(statistics.median(found), 3)
    return {name: told(each) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device, size = find_device(given.device), SMALL if given.small else FULL
    found: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "size": asdict(size),
    }
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        files = photographs(place / "pictures", size.pictures)
        for name, measured in {
            "detector": lambda: detector(place, files, device, size),
            "backbone": lambda: backbone(place, files, device, size),
            "training": lambda: training(place, device, size),
        }.items():
            found[name] = measured()
            print(name, json.dumps(found[name]), flush=True)
            if given.out:  # after each: a machine that is lent may go
                given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
