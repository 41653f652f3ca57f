"""Steps of a training on one core: this checkout beside another, in alternating rounds.

    python benchmarks/speed/training_speed.py FEATURES OTHER_PYTHON [--rounds 15] [--steps 3]
        [--data DIR] [--precision bf16-mixed] [--set NAME=VALUE ...]

FEATURES is a feature file with a data set beside it, as `cqr extract` leaves them, or in DIR;
OTHER_PYTHON the interpreter of an environment in which another version of cqr is installed.  Each
is a process of its own on one thread; both train the recommended model on the same batches, and
take turns of STEPS steps.  --precision is of this one's arithmetic, and --set of its settings, as
of `cqr compare`, where it would train another model than the other; OTHER_PYTHON may be its own.
Prints queries a second of CPU time, the median and the best of the rounds, their ratio, and how
far the losses of all steps are apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from statistics import median
from typing import Any


def main() -> None:
    if sys.argv[1] == "--turns":
        features, data, steps, precision, *said = sys.argv[2:]
        take_turns(Path(features), Path(data) if data else None, int(steps), precision, said)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("features", type=Path)
    parser.add_argument("other")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--set", action="append", default=[])
    o = parser.parse_args()
    data = str(o.data.resolve()) if o.data else ""
    turns = {}
    for name, python, precision, said in (
        ("this", sys.executable, o.precision, o.set),
        ("other", o.other, "32-true", []),
    ):
        command = [python, str(Path(__file__).resolve()), "--turns"]
        command += [str(o.features.resolve()), data, str(o.steps), precision, *said]
        turns[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
    speed: dict[str, list[float]] = {name: [] for name in turns}
    losses: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(o.rounds):
        for name, process in turns.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline())
            speed[name].append(said["speed"])
            losses[name] += said["losses"]
    for process in turns.values():
        process.communicate()
    for name, found in speed.items():
        print(f"{name:6} {median(found):7.0f} queries a second, best {max(found):7.0f}")
    ratios = [a / b for a, b in zip(speed["this"], speed["other"], strict=True)]
    best = max(speed["this"]) / max(speed["other"])
    apart = [abs(a - b) / b for a, b in zip(losses["this"], losses["other"], strict=True)]
    print(f"ratio: median {median(ratios):.2f}, of the best {best:.2f}")
    print(f"losses of {len(apart)} steps: {max(apart):.1e} apart at most, of themselves")


def take_turns(
    features: Path, data: Path | None, steps: int, precision: str, said: list[str]
) -> None:
    import numpy as np
    import torch

    from cqr.trainer.comparing import rows
    from cqr.trainer.training.material import Wanted, collect
    from cqr.trainer.training.start import start

    torch.set_num_threads(1)
    material = collect(features, Wanted(data))
    spec, recommended = rows.specs(["lbf"])[0], material.dataset.recommended
    settings = rows.settled(spec, ["select=last", *said], recommended)
    with tempfile.TemporaryDirectory() as folder:
        run = start(material, settings, folder=Path(folder))
        t, step = stepping(run, material, precision)
    t.model.train()
    pairs, at = t.pairs(0), 0
    for _ in sys.stdin:
        losses, began = [], time.process_time()
        for _ in range(steps):
            first = at % t.steps * t.batch
            torch.manual_seed(at)
            losses.append(step(pairs.batch(np.arange(first, first + t.batch)), at))
            at += 1
        speed = steps * t.batch / (time.process_time() - began)
        print(json.dumps({"speed": speed, "losses": losses}), flush=True)


def stepping(run: Any, material: Any, precision: str) -> tuple[Any, Callable[[Any, int], float]]:
    """A training, and a step of it by a batch and its number, which gives the loss."""
    from cqr.trainer.training import train as training

    stop = threading.Event()
    try:
        from cqr.trainer.training.steps.fabric import fabric_of
        from cqr.trainer.training.steps.step import Alone, take_step
    except ModuleNotFoundError:  # an earlier version
        t, _ = training._set_up(run, material, "cpu", precision)
        step = getattr(training, "take_step", None) or training._step
        takes = len(signature(step).parameters)  # once it took two
        return t, lambda batch, at: step(*[t, batch, at, stop][:takes])[0]
    seen = material.seen_by(run.settings)
    t, _ = training._set_up(run, seen, fabric_of("cpu", precision))
    forward = Alone(t)

    def step_of(batch: Any, at: int) -> float:
        [losses], _ = take_step([t], forward, [batch], at, stop).read()
        return losses["loss"]

    return t, step_of


if __name__ == "__main__":
    main()
