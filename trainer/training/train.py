"""Train a model from regions and words, with exact resume.

Everything random in a step is a function of the seed and the step's number, so
a training that was killed and resumed ends with the weights of one that was
not: bit for bit on one machine's CPU.
"""

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning_fabric
import numpy as np
import torch

from cqr.atomic import alone, replacing
from cqr.errors import UserError
from cqr.machine import find_device, leads
from cqr.trainer.models import sharing
from cqr.trainer.models.from_joint import FromJoint
from cqr.trainer.ranking.encode import encode
from cqr.trainer.ranking.metrics import recall_at
from cqr.trainer.text.tower import JointReader
from cqr.trainer.training import checkpoint
from cqr.trainer.training.checkpoint import Progress
from cqr.trainer.training.epoch import OnStep, run_epoch, save
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run
from cqr.trainer.training.steps.batched import Batched, Compiled
from cqr.trainer.training.steps.fabric import (
    check_divisible,
    check_together,
    check_whole,
    fabric_of,
    fused,
)
from cqr.trainer.training.steps.optimizers import optimizer_of
from cqr.trainer.training.steps.resident import near, read_once
from cqr.trainer.training.steps.step import Alone, Forward, Training
from cqr.trainer.training.untrained import begin, fit

OnEpoch = Callable[[dict[str, Any]], None]
"""Told after each epoch, and of a start that was scored, which is epoch 0: its line in the log."""


def train(
    run: Run,
    material: Material,
    *,
    on_step: OnStep = lambda *_: None,
    on_epoch: OnEpoch = lambda _: None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
) -> Progress:
    """Train a run to its last epoch, from its checkpoint if there is one.

    The weights of a model that is not trained are measured.

    Args:
        device: see `machine.find_device`.
        precision: as Lightning Fabric names it; None is bf16-mixed on a GPU and
            32-true on a CPU.
        compile: see `steps.batched.Compiled`.

    Raises:
        UserError: nothing to train on, another process is at the run, its checkpoint does not
            fit, or a loss that is not finite.
        KeyboardInterrupt: asked to stop; the state was saved first.
    """
    [progress] = train_seeds(
        [run],
        material,
        on_step=on_step,
        on_epoch=on_epoch,
        device=device,
        precision=precision,
        compile=compile,
    )
    return progress


def train_seeds(
    runs: Sequence[Run],
    material: Material,
    *,
    on_step: OnStep = lambda *_: None,
    on_epoch: OnEpoch = lambda _: None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
) -> list[Progress]:
    """Train runs that differ in their seeds alone, as one batched model: see `steps.batched`.

    Each is the run that `train` makes of it, but for rounding, and for what dropout draws.

    Args and raises: as `train`.
    """
    with ExitStack() as held:
        for run in runs if leads() else ():  # of processes that train together, one holds the run
            what = f"training {run.path}"
            held.enter_context(alone(run.path, what, "begin another run with --fresh"))
            for left in run.path.glob(".*.partial"):  # by one that was killed
                left.unlink(missing_ok=True)
        return _train(runs, material, on_step, on_epoch, device, precision, compile)


def _train(
    runs: Sequence[Run],
    material: Material,
    on_step: OnStep,
    on_epoch: OnEpoch,
    device: str,
    precision: str | None,
    compile: bool,
) -> list[Progress]:
    if runs[0].settings.untrained:
        for run in runs:
            fit(run, material.reader, find_device(device))
        return [Progress() for _ in runs]
    fabric = fabric_of(device, precision)
    if compile or len(runs) > 1:
        check_whole(fabric)
    material = material.seen_by(runs[0].settings)
    material = replace(material, reader=near(material.reader, fabric.device))
    return _to_the_end(runs, material, fabric, compile, on_step, on_epoch)


def _to_the_end(
    runs: Sequence[Run],
    material: Material,
    fabric: lightning_fabric.Fabric,
    compile: bool,
    on_step: OnStep,
    on_epoch: OnEpoch,
) -> list[Progress]:
    """From where the runs stand, with the regions as their models are given them."""
    trainings, where = zip(*(_set_up(run, material, fabric) for run in runs), strict=True)
    progress: list[Progress] = list(where)
    if len({(one.epoch, one.step) for one in progress}) > 1:  # a kill came between their saves
        each = [_to_the_end([run], material, fabric, compile, on_step, on_epoch) for run in runs]
        return [one for [one] in each]
    epochs = runs[0].settings.epochs
    with _stop_requests() as stop, ThreadPoolExecutor(1) as loader:
        for n, t in enumerate(trainings):
            progress[n] = _begun(t, progress[n], on_epoch)
        forward = _forward(trainings, compile)
        while progress[0].epoch < epochs:
            progress, lines = run_epoch(trainings, forward, progress, loader, stop, on_step)
            for n, (t, line) in enumerate(zip(trainings, lines, strict=True)):
                if t.choice and leads():
                    line |= _validate(t)
                progress[n] = _keep(t, progress[n], line)
                on_epoch(line)
            asked = sharing.mean(torch.tensor(float(stop.is_set()), device=fabric.device))
            if asked > 0 and progress[0].epoch < epochs:
                raise KeyboardInterrupt
    return progress


def _forward(trainings: Sequence[Training], compile: bool) -> Forward:
    if len(trainings) > 1:
        return Batched(trainings, compile)
    return Compiled(trainings[0]) if compile else Alone(trainings[0])


def _set_up(
    run: Run, material: Material, fabric: lightning_fabric.Fabric
) -> tuple[Training, Progress]:
    settings = run.settings
    source, choice = divide(material.dataset, settings)
    batch = min(settings.batch, len(source))
    if batch < 2:
        raise UserError(f"there are {len(source)} training queries: at least 2 are needed")
    check_divisible(batch, fabric.world_size)
    words = run.words(fabric.device)
    torch.manual_seed(settings.seed)
    module = run.model().to(fabric.device)  # before its optimizer, whose state is loaded there
    optimizer = optimizer_of(module, settings, fused(fabric))
    progress = checkpoint.load(run.checkpoint, module, optimizer)
    if isinstance(module, FromJoint) and progress == Progress():
        begin(module, material.reader, cast(JointReader, words))
    if fabric.world_size > 1:
        sharing.with_shared_norms(module)
    model, optimizer = fabric.setup(module, optimizer)
    check_together(run, progress, fabric)
    words = read_once(words, source.texts(), fabric.device)
    training = Training(
        run, material, source, choice, words, batch, fabric, module, model, optimizer
    )
    if progress.epoch > settings.epochs or progress.step > training.steps:
        raise UserError(
            f"{run.checkpoint} is damaged (it stands at epoch {progress.epoch}, step "
            f"{progress.step}, and there are {settings.epochs} of {training.steps} steps): start "
            "anew with --fresh"
        )
    if leads():  # a kill may have left more
        known = [line for line in run.history() if line["epoch"] <= progress.epoch]
        _write_log(run.log, known if progress != Progress() else [])
    return training, progress


def _begun(t: Training, progress: Progress, on_epoch: OnEpoch) -> Progress:
    """Score what a training starts from, where that is worth something; it may be chosen."""
    if t.run.settings.start != "joint" or not t.choice or progress != Progress():
        return progress
    line = {"epoch": 0, **(_validate(t) if leads() else {})}
    progress = _keep(t, progress, line)
    on_epoch(line)
    return progress


def _validate(t: Training) -> dict[str, Any]:
    """Recall on the queries that choose the epoch; its mean over k is the score."""
    reader, words = t.material.reader, t.words
    ranks = [
        encode(t.module, reader, words, work, t.fabric.device).rank(work).rank for work in t.choice
    ]
    ks = t.material.dataset.protocol.recall_at
    recall = {str(k): float(np.mean([recall_at(rank, k) for rank in ranks])) for k in ks}
    return {"recall": recall, "score": float(np.mean(list(recall.values())))}


def _keep(t: Training, progress: Progress, line: dict[str, Any]) -> Progress:
    """Keep the weights if none before were better, then the log line, then the checkpoint.

    The checkpoint comes last: a kill before it is mended by resuming, since the
    epoch is trained again, to the same weights, and the log is cut back.
    """
    value = line.get("score")
    better = not t.choice or (
        value is not None and (progress.best is None or value >= progress.best)
    )
    progress = Progress(epoch=line["epoch"], best=value if better else progress.best)
    if leads():
        if better:
            checkpoint.save_weights(t.run.weights, t.module)
        _write_log(t.run.log, [*t.run.history(), line])
    save(t, progress)
    return progress


def _write_log(path: Path, lines: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Set on Ctrl-C or SIGTERM, so that the step ends and is saved; a second Ctrl-C is at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
