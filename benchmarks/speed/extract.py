"""What extraction costs beside the bare detector, and whether its memory grows.

    python benchmarks/speed/extract.py time --images photos --detector grid
    python benchmarks/speed/extract.py backbone --images photos
    python benchmarks/speed/extract.py memory

`time`: the wall time of `extract` with one worker over the time of the detector's calls on the
same batches, decoded beforehand; both with one torch thread and the same loaded detector,
alternating; the median of the rounds' ratios, since neighbours slow either down.  The CPU time,
of all threads, says what a machine without a free core would see.  Goal: 1.10.

`stages.py` beside it says where the time goes, and compares what computes the network.

`backbone`: the same of a CLIP ViT-B/32 of random weights, over the forward passes of transformers'
own model on the same pictures, resized and normalised beforehand.  Goal: 1.05.

`memory`: the peak resident size of a process that extracts 2,000 and 34,000 pictures, links to a
few files, with a detector of K = 36 and D = 1280 that costs next to nothing.  Goal: within 10 %.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cqr.listing import find
from cqr.pipeline import images
from cqr.pipeline.compute import full_batches, one_thread
from cqr.pipeline.detectors import NAMES, Detector, DetectorSpec
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.plan import shard_size
from cqr.pipeline.regions import Regions

K, BATCH = 36, 4


@dataclass(frozen=True)
class Loaded(DetectorSpec):
    """A detector that is there already: loading it is no part of either time."""

    detector: Detector | None = None

    def load(self) -> Detector:
        assert self.detector is not None
        return self.detector


def compare_times(
    folder: Path,
    spec: DetectorSpec,
    rounds: int,
    prepare: Callable[[Detector, list[np.ndarray]], Any] = lambda detector, pictures: pictures,
    bare: Callable[[Detector, Any], Any] = lambda detector, pictures: detector(pictures, K),
) -> None:
    """Extraction over `bare` on what `prepare` makes of the same batches beforehand."""
    detector = spec.load()
    paths, _ = find(folder)

    def read(path: Path) -> np.ndarray:
        return images.decoded(path, fraction=detector.fraction).pixels

    size = shard_size(len(paths))
    batches = []
    for first in range(0, len(paths), size):  # the same batches as in the shards
        shard = [folder / path for path in paths[first : first + size]]
        sizes = [images.size(path) for path in shard]
        for batch in full_batches(sizes, detector.network_size, BATCH):
            batches.append(prepare(detector, [read(shard[i]) for i in batch]))
    ratios: dict[str, list[float]] = {"wall": [], "CPU": []}
    with tempfile.TemporaryDirectory() as scratch, one_thread():
        for i in range(rounds):
            start = _clocks()
            for batch in batches:
                bare(detector, batch)
            middle = _clocks()
            loaded = Loaded(spec.name, device="cpu", detector=detector)
            out = Path(scratch, f"{i}.h5")
            job = Job(folder, out, K, loaded, batch=BATCH, workers=1, runtime="torch")
            times = extract(job).times
            end = _clocks()
            for clock in ratios:
                ratios[clock].append((end[clock] - middle[clock]) / (middle[clock] - start[clock]))
            print(
                f"round {i + 1}: bare {middle['wall'] - start['wall']:.2f} s, extract"
                f" {end['wall'] - middle['wall']:.2f} s (waited for pictures {times.read:.2f},"
                f" detector {times.detect:.2f}, wrote {times.write:.2f})"
            )
    print(f"{len(paths)} pictures, {spec.name}, K {K}, batch {BATCH}: extract / bare")
    for clock, found in ratios.items():
        print(
            f"  {clock} time: {statistics.median(found):.3f}"
            f" (rounds {min(found):.3f} to {max(found):.3f})"
        )


def compare_backbone(folder: Path, rounds: int) -> None:
    """A CLIP ViT-B/32 as its makers' library runs it, over what `extract` takes with it."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    def prepare(detector: Detector, pictures: list[np.ndarray]) -> torch.Tensor:
        kept = [np.asarray(Image.fromarray(p).resize((224, 224))) for p in pictures]
        return torch.tensor(np.stack(kept)).permute(0, 3, 1, 2).float() / 255 - 0.5

    with tempfile.TemporaryDirectory() as made:
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig()).eval()  # the library's own sizes are those of ViT-B/32
        model.save_pretrained(made)
        square = {"height": 224, "width": 224}
        Path(made, "preprocessor_config.json").write_text(json.dumps({"size": square}))

        @torch.inference_mode()
        def bare(detector: Detector, batch: torch.Tensor) -> Any:
            return model.get_image_features(pixel_values=batch)

        spec = DetectorSpec("transformers", made, device="cpu")
        compare_times(folder, spec, rounds, prepare, bare)


def _clocks() -> dict[str, float]:
    return {"wall": time.perf_counter(), "CPU": time.process_time()}


class Cheap:
    """K equal boxes; the picture's mean colour as a feature of width 1280."""

    dim, max_k = 1280, K
    identity = {"name": "cheap"}  # noqa: RUF012
    prepare = None

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def fraction(self, width: int, height: int) -> int:
        return 1

    def check_k(self, k: int) -> None:
        pass

    def __call__(self, pictures: list[np.ndarray], k: int) -> list[Regions]:
        return [self._regions(picture, k) for picture in pictures]

    def _regions(self, picture: np.ndarray, k: int) -> Regions:
        height, width = picture.shape[:2]
        features = np.full((k, self.dim), picture.mean(), np.float32)
        boxes = np.tile(np.float32([0, 0, width, height]), (k, 1))
        return Regions(features, boxes, np.ones(k, np.float32), k, features[0], width, height)


def compare_memory(few: int, many: int) -> None:
    peaks = []
    for number in (few, many):
        command = [sys.executable, __file__, "one-memory", str(number)]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks.append(int(line))
        print(f"{number:,} pictures: peak {peaks[-1] / 1024:.0f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


def peak_memory(number: int) -> int:
    """KiB that this process held at most."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "pictures")
        folder.mkdir()
        random = np.random.default_rng(0)
        for i in range(8):
            pixels = random.integers(0, 255, (96, 128 if i % 2 else 72, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:06d}.png")
        for i in range(8, number):
            os.link(folder / f"{i % 8:06d}.png", folder / f"{i:06d}.png")
        out = Path(scratch, "x.h5")
        extract(Job(folder, out, K, Loaded("cheap", device="cpu", detector=Cheap()), workers=1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser("time")
    timing.add_argument("--images", type=Path, required=True)
    timing.add_argument("--detector", choices=NAMES, default="grid")
    timing.add_argument("--config")
    timing.add_argument("--weights", type=Path)
    timing.add_argument("--rounds", type=int, default=7)
    backbone = commands.add_parser("backbone")
    backbone.add_argument("--images", type=Path, required=True)
    backbone.add_argument("--rounds", type=int, default=7)
    memory = commands.add_parser("memory")
    memory.add_argument("--few", type=int, default=2_000)
    memory.add_argument("--many", type=int, default=34_000)
    one = commands.add_parser("one-memory")
    one.add_argument("number", type=int)
    options = parser.parse_args()
    if options.command == "time":
        spec = DetectorSpec(options.detector, options.config, options.weights, "cpu")
        compare_times(options.images, spec, options.rounds)
    elif options.command == "backbone":
        compare_backbone(options.images, options.rounds)
    elif options.command == "memory":
        compare_memory(options.few, options.many)
    else:
        print(peak_memory(options.number))


if __name__ == "__main__":
    main()
