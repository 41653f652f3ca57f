"""One epoch of trainings that step together."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.machine import device_name, leads
from cqr.trainer.training import checkpoint
from cqr.trainer.training.checkpoint import Progress
from cqr.trainer.training.steps.batches import Pairs, ahead
from cqr.trainer.training.steps.step import (
    Forward,
    Taken,
    Training,
    seed_with,
    set_lr,
    take_step,
)

OnStep = Callable[[int, int, int, float], None]
"""Told after each step: epoch, step, steps of the epoch (from 0), loss."""


def run_epoch(
    trainings: Sequence[Training],
    forward: Forward,
    progress: list[Progress],
    loader: ThreadPoolExecutor,
    stop: threading.Event,
    on_step: OnStep,
) -> tuple[list[Progress], list[dict[str, Any]]]:
    """Run what is left of an epoch, and say how it went: where each training stands, and a line.

    A GPU is given a step's work before it is asked what the last one gave, so that it need not
    wait for the next.

    Args:
        progress: of each training; all stand at the same step of one epoch.

    Raises:
        UserError: a loss is not finite.
        KeyboardInterrupt: asked to stop; the state was saved first.
    """
    t, (epoch, first) = trainings[0], (progress[0].epoch, progress[0].step)
    settings, rank, world = t.run.settings, t.fabric.global_rank, t.fabric.world_size
    device = t.fabric.device
    pairs = [each.pairs(epoch) for each in trainings]
    whole = np.arange(t.steps * t.batch).reshape(t.steps, t.batch)
    behind = 0 if device.type == "cpu" else 1
    began, waited, stopped = time.perf_counter(), 0.0, False
    unread: deque[tuple[int, Taken]] = deque()

    def read() -> bool:
        nonlocal progress
        step, taken = unread.popleft()
        found, asked = taken.read()
        for each, drawn, losses in zip(trainings, pairs, found, strict=True):
            if not math.isfinite(losses["loss"]):
                raise UserError(_not_finite(each, drawn, whole[step], epoch, step))
        progress = [_further(*one, step) for one in zip(progress, found, strict=True)]
        on_step(epoch, step, t.steps, float(np.mean([losses["loss"] for losses in found])))
        return asked

    for step, batches, wait in ahead(loader, pairs, whole[:, rank::world], first, device):
        waited += wait
        at = epoch * t.steps + step
        seed_with(settings, at * world + rank)
        for each in trainings:
            set_lr(each.optimizer, settings, at, settings.epochs * t.steps)
        unread.append((step, take_step(trainings, forward, batches, at, stop)))
        if len(unread) > behind and (stopped := read()):
            break
    while unread:
        stopped |= read()
    if stopped and progress[0].step < t.steps:
        for each, one in zip(trainings, progress, strict=True):
            save(each, one)
        raise KeyboardInterrupt
    seconds = (time.perf_counter() - began) / len(trainings)  # each has its share
    speed = {
        "seconds": round(seconds, 3),
        "loader_seconds": round(waited / len(trainings), 3),
        "queries_per_second": round((t.steps - first) * t.batch / seconds, 1),
        "device": device_name(device),
    }
    if len(trainings) > 1:
        speed["together"] = len(trainings)
    return progress, [_line(one, t.steps) | speed for one in progress]


def save(t: Training, progress: Progress) -> None:
    """Write all that resuming needs."""
    if leads():
        checkpoint.save(t.run.checkpoint, progress, t.module, t.optimizer)
    t.fabric.barrier()


def _further(progress: Progress, losses: dict[str, float], step: int) -> Progress:
    extra = {
        name: progress.extra.get(name, 0.0) + value
        for name, value in losses.items()
        if name != "loss"
    }
    return replace(progress, step=step + 1, loss=progress.loss + losses["loss"], extra=extra)


def _line(progress: Progress, steps: int) -> dict[str, Any]:
    """What the log says of an epoch's losses."""
    extra = {f"{name}_loss": total / steps for name, total in progress.extra.items()}
    return {"epoch": progress.epoch + 1, "loss": progress.loss / steps, **extra}


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
