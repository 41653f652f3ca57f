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
from cqr.trainer.training.steps.batches import Batch, Pairs, ahead
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
    epoch = _Epoch(trainings, progress, on_step)
    fabric, first = trainings[0].fabric, progress[0].step
    behind = 0 if fabric.device.type == "cpu" else 1
    index = epoch.index[:, fabric.global_rank :: fabric.world_size]
    began, waited, stopped = time.perf_counter(), 0.0, False
    for step, batches, wait in ahead(loader, epoch.pairs, index, first, fabric.device):
        waited += wait
        epoch.take(forward, batches, step, stop)
        if len(epoch.unread) > behind and (stopped := epoch.read()):
            break
    while epoch.unread:
        stopped |= epoch.read()
    if stopped and not epoch.over:
        for t, one in zip(trainings, epoch.progress, strict=True):
            save(t, one)
        raise KeyboardInterrupt
    seconds = time.perf_counter() - began
    return epoch.progress, epoch.lines(first, seconds, waited)


class _Epoch:
    """An epoch as it goes.

    Attributes:
        progress: where each training stands, by the steps that were read.
        pairs: of each training.
        index: of an epoch's steps, which pairs are a batch.
        unread: the steps that were taken since, and their numbers.
    """

    def __init__(
        self, trainings: Sequence[Training], progress: list[Progress], on_step: OnStep
    ) -> None:
        t = self.first = trainings[0]
        self.trainings, self.progress, self.on_step = trainings, progress, on_step
        self.number = progress[0].epoch
        self.pairs = [each.pairs(self.number) for each in trainings]
        self.index = np.arange(t.steps * t.batch).reshape(t.steps, t.batch)
        self.unread: deque[tuple[int, Taken]] = deque()

    @property
    def over(self) -> bool:
        return self.progress[0].step == self.first.steps

    def take(
        self, forward: Forward, batches: Sequence[Batch], step: int, stop: threading.Event
    ) -> None:
        """Take a step; what it gave is `unread`."""
        t, settings = self.first, self.first.run.settings
        at = self.number * t.steps + step
        seed_with(settings, at * t.fabric.world_size + t.fabric.global_rank)
        for each in self.trainings:
            set_lr(each.optimizer, settings, at, settings.epochs * t.steps)
        self.unread.append((step, take_step(self.trainings, forward, batches, at, stop)))

    def read(self) -> bool:
        """Read what the first of the `unread` gave, and whether all are asked to stop."""
        step, taken = self.unread.popleft()
        found, asked = taken.read()
        for t, pairs, losses in zip(self.trainings, self.pairs, found, strict=True):
            if not math.isfinite(losses["loss"]):
                raise UserError(_not_finite(t, pairs, self.index[step], self.number, step))
        self.progress = [_further(*one, step) for one in zip(self.progress, found, strict=True)]
        mean = float(np.mean([losses["loss"] for losses in found]))
        self.on_step(self.number, step, self.first.steps, mean)
        return asked

    def lines(self, first: int, seconds: float, waited: float) -> list[dict[str, Any]]:
        """What the log says; of the time each training has its share."""
        t, together = self.first, len(self.trainings)
        share = seconds / together
        speed = {
            "seconds": round(share, 3),
            "loader_seconds": round(waited / together, 3),
            "queries_per_second": round((t.steps - first) * t.batch / share, 1),
            "device": device_name(t.fabric.device),
        }
        if together > 1:
            speed["together"] = together
        return [_line(one, t.steps) | speed for one in self.progress]


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
