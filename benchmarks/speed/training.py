"""What loading costs a training, and whether memory grows with the number of images.

    python benchmarks/speed/training.py [--images 2000 34000] [--dim 1024] [--k 36] [--steps 40]

For each number of images: a feature file of random numbers, a training of the
light LBF on 64 x STEPS random queries in a process of its own, and then the
share of the wall time that was spent waiting for the loader and the largest
resident memory that was not file cache (mapped pages of the feature file are
the kernel's to drop).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from gather import make


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 34000])
    for name, value in (("dim", 1024), ("k", 36), ("steps", 40)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return
    print("images   loader's share of wall time   anonymous memory at most")
    for images in options.images:
        with tempfile.TemporaryDirectory() as place:
            write(Path(place), images, options)
            command = [sys.executable, __file__, "--train", place]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            share = 100 * said["loader_seconds"] / said["seconds"]
            print(f"{images:6}   {share:.2f} %   {said['memory'] / 2**20:.0f} MiB")


def write(place: Path, images: int, o: argparse.Namespace) -> None:
    make(place, images, o.k, o.dim)
    rng = np.random.default_rng(0)
    n = 64 * o.steps + 64
    pairs = rng.integers(0, images, (2, n))
    split = np.where(np.arange(n) < 64 * o.steps, "train", "test")
    words = rng.integers(0, 500, (n, 6))
    table = {
        "reference": [f"{i}.jpg" for i in pairs[0]],
        "text": [" ".join(f"w{w}" for w in row) for row in words],
        "target": [f"{i}.jpg" for i in pairs[1]],
        "split": split,
    }
    pd.DataFrame(table).to_csv(place / "bench.queries.csv", index=False)


def train(place: Path) -> None:
    """In a process of its own: one epoch, its times, and the peak of its own memory."""
    import torch

    from cqr.trainer.training.material import Wanted, collect
    from cqr.trainer.training.settings import settle
    from cqr.trainer.training.start import start
    from cqr.trainer.training.train import train as run_training

    torch.set_num_threads(1)
    material = collect(place / "bench.h5", Wanted(place / "bench.queries.csv"))
    given = {"epochs": 1, "batch": 64, "select": "last"}
    run = start(material, settle(material.dataset.recommended, given, []), folder=place / "runs")
    peak, lines = 0, []

    def on_step(*_: object) -> None:
        nonlocal peak
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        peak = max(peak, 1024 * int(status["RssAnon"].split()[0]))

    run_training(run, material, on_step=on_step, on_epoch=lines.append, device="cpu")
    print(json.dumps(lines[-1] | {"memory": peak}))


if __name__ == "__main__":
    main()
