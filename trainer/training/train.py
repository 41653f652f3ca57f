"""Train a model from regions and words, with exact resume.

Everything random in a step is a function of the seed and the step's number, so
a training that was killed and resumed ends with the weights of one that was
not: bit for bit on one machine's CPU.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cqr.atomic import alone, replacing
from cqr.errors import UserError
from cqr.machine import device_name, find_device, leads
from cqr.trainer.models import sharing
from cqr.trainer.models.from_joint import FromJoint
from cqr.trainer.ranking.encode import encode
from cqr.trainer.ranking.metrics import recall_at
from cqr.trainer.text.tower import JointReader
from cqr.trainer.training import checkpoint
from cqr.trainer.training.checkpoint import Progress
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run
from cqr.trainer.training.steps.batches import Pairs, ahead
from cqr.trainer.training.steps.fabric import check_divisible, check_together, fabric_of
from cqr.trainer.training.steps.optimizers import optimizer_of
from cqr.trainer.training.steps.step import Training, seed_with, set_lr, take_step
from cqr.trainer.training.untrained import begin, fit

OnStep = Callable[[int, int, int, float], None]
"""Told after each step: epoch, step, steps of the epoch (from 0), loss."""

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
) -> Progress:
    """Train a run to its last epoch, from its checkpoint if there is one.

    The weights of a model that is not trained are measured.

    Args:
        device: see `machine.find_device`.
        precision: as Lightning Fabric names it; None is bf16-mixed on a GPU and
            32-true on a CPU.

    Raises:
        UserError: nothing to train on, another process is at the run, its checkpoint does not
            fit, or a loss that is not finite.
        KeyboardInterrupt: asked to stop; the state was saved first.
    """
    if not leads():  # of processes that train together, one holds the run
        return _train(run, material, on_step, on_epoch, device, precision)
    with alone(run.path, f"training {run.path}", "begin another run with --fresh"):
        for left in run.path.glob(".*.partial"):  # by one that was killed
            left.unlink(missing_ok=True)
        return _train(run, material, on_step, on_epoch, device, precision)


def _train(
    run: Run,
    material: Material,
    on_step: OnStep,
    on_epoch: OnEpoch,
    device: str,
    precision: str | None,
) -> Progress:
    settings = run.settings
    if settings.untrained:
        fit(run, material.reader, find_device(device))
        return Progress()
    training, progress = _set_up(run, material, device, precision)
    with _stop_requests() as stop, ThreadPoolExecutor(1) as loader:
        progress = _begun(training, progress, on_epoch)
        while progress.epoch < settings.epochs:
            progress, line = _epoch(training, progress, loader, stop, on_step)
            if training.choice and leads():
                line |= _validate(training)
            progress = _keep(training, progress, line)
            on_epoch(line)
            asked = sharing.mean(torch.tensor(float(stop.is_set()), device=training.fabric.device))
            if asked > 0 and progress.epoch < settings.epochs:
                raise KeyboardInterrupt
    return progress


def _set_up(
    run: Run, material: Material, device: str, precision: str | None
) -> tuple[Training, Progress]:
    settings = run.settings
    material = material.seen_by(settings)
    source, choice = divide(material.dataset, settings)
    batch = min(settings.batch, len(source))
    if batch < 2:
        raise UserError(f"there are {len(source)} training queries: at least 2 are needed")
    fabric = fabric_of(device, precision)
    check_divisible(batch, fabric.world_size)
    words = run.words(fabric.device)
    torch.manual_seed(settings.seed)
    module = run.model().to(fabric.device)  # before its optimizer, whose state is loaded there
    fused = not str(precision).startswith("16")  # it would scale back gradients after the clip
    optimizer = optimizer_of(module, settings, fused)
    progress = checkpoint.load(run.checkpoint, module, optimizer)
    if isinstance(module, FromJoint) and progress == Progress():
        begin(module, material.reader, cast(JointReader, words))
    if fabric.world_size > 1:
        sharing.with_shared_norms(module)
    model, optimizer = fabric.setup(module, optimizer)
    check_together(run, progress, fabric)
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


def _epoch(
    t: Training,
    progress: Progress,
    loader: ThreadPoolExecutor,
    stop: threading.Event,
    on_step: OnStep,
) -> tuple[Progress, dict[str, Any]]:
    """Run what is left of an epoch, and say how it went."""
    settings, epoch, first = t.run.settings, progress.epoch, progress.step
    rank, world = t.fabric.global_rank, t.fabric.world_size
    pairs = t.pairs(epoch)
    whole = np.arange(t.steps * t.batch).reshape(t.steps, t.batch)
    began, waited = time.perf_counter(), 0.0
    for step, batch, wait in ahead(loader, pairs, whole[:, rank::world], first):
        waited += wait
        at = epoch * t.steps + step
        seed_with(settings, at * world + rank)
        set_lr(t.optimizer, settings, at, settings.epochs * t.steps)
        loss, extra, stopped = take_step(t, batch, at, stop)
        if not math.isfinite(loss):
            raise UserError(_not_finite(t, pairs, whole[step], epoch, step))
        extra = {name: progress.extra.get(name, 0.0) + value for name, value in extra.items()}
        progress = replace(progress, step=step + 1, loss=progress.loss + loss, extra=extra)
        on_step(epoch, step, t.steps, loss)
        if stopped and step + 1 < t.steps:
            _save(t, progress)
            raise KeyboardInterrupt
    seconds = time.perf_counter() - began
    return progress, {
        "epoch": epoch + 1,
        "loss": progress.loss / t.steps,
        **{f"{name}_loss": total / t.steps for name, total in progress.extra.items()},
        "seconds": round(seconds, 3),
        "loader_seconds": round(waited, 3),
        "queries_per_second": round((t.steps - first) * t.batch / seconds, 1),
        "device": device_name(t.fabric.device),
    }


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
    _save(t, progress)
    return progress


def _save(t: Training, progress: Progress) -> None:
    if leads():
        checkpoint.save(t.run.checkpoint, progress, t.module, t.optimizer)
    t.fabric.barrier()


def _write_log(path: Path, lines: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _not_finite(t: Training, pairs: Pairs, index: NDArray[np.int64], epoch: int, step: int) -> str:
    """Why a loss is not finite: the features' fault or the learning rate's."""
    where = f"the loss is not finite in epoch {epoch + 1}, step {step + 1}"
    run = t.run
    for rows in (pairs.reference[index], pairs.target[index]):
        bad = (~torch.isfinite(pairs.reader.gather(rows).features).flatten(1).all(1)).nonzero()
        if len(bad):
            name = pairs.reader.paths[rows[int(bad[0])]]
            return (
                f"{where}: the features of {name} are not finite; "
                f"check them with `cqr inspect {run.features}`"
            )
    return f"{where}: train with a lower --lr than {run.settings.lr} (the last epoch is kept)"


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
