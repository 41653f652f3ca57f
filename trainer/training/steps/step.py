"""One step of trainings: what each needs, its losses, and the weights that move by them."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightning_fabric
import numpy as np
import torch
from torch import Tensor

from cqr.trainer.datasets.pairs import PairSource
from cqr.trainer.datasets.queries import Task, captions
from cqr.trainer.models import sharing
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextReader
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.steps.batches import Batch, Pairs
from cqr.trainer.training.steps.losses import LOSSES


@dataclass(frozen=True)
class Training:
    """What every step of a training needs."""

    run: Run
    material: Material
    source: PairSource
    choice: list[Task]
    words: TextReader
    batch: int
    fabric: lightning_fabric.Fabric
    module: RetrievalModel
    model: Any  # the module as Fabric wraps it
    optimizer: Any

    @property
    def steps(self) -> int:
        """Of an epoch; what does not fill a batch is left to a later epoch's order."""
        return len(self.source) // self.batch

    def pairs(self, epoch: int) -> Pairs:
        """The pairs of an epoch, a function of the seed and its number."""
        settings, reader = self.run.settings, self.material.reader
        rng = np.random.default_rng([settings.seed, epoch])
        drawn = self.source.draw(rng)
        pairs = Pairs.of(drawn, reader, self.words, captions(self.material.dataset))
        return pairs.reordered(settings.reorder, rng) if settings.reorder else pairs


def set_lr(optimizer: Any, settings: Settings, at: int, total: int) -> None:
    """Linear warm-up, then a cosine to 0, as a function of the step alone."""
    warm = min(1.0, (at + 1) / max(1, min(settings.warmup, total // 10)))
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * warm * 0.5 * (1 + math.cos(math.pi * at / total))


def seed_with(settings: Settings, number: int) -> None:
    """What is drawn next is a function of the seed and of a step's number alone."""
    torch.manual_seed((settings.seed << 32) + number)


def losses(model: Any, batch: Batch, settings: Settings, at: int) -> dict[str, Tensor]:
    """The scalars that a step is about: "loss", the sum, and by name what in it is the model's own.

    Args:
        at: the step's number, counted from the first of the training.
    """
    out = model(batch.reference, batch.words, batch.target)
    alike = sharing.gathered(batch.alike) if settings.negatives == "wrong" else None
    if sharing.processes() > 1:  # what a loss draws must be drawn alike by all
        seed_with(settings, at)
    loss = _loss(settings, out.query, out.target, alike)
    extra = {}
    for name, (weight, value) in out.extra.items():
        if isinstance(value, tuple):
            value = _loss(settings, value[0], value[1], alike)
        extra[name] = weight * value
        loss = loss + extra[name]
    return {"loss": loss, **extra}


def _loss(settings: Settings, query: Tensor, target: Tensor, alike: Tensor | None) -> Tensor:
    """Of B x E vectors; of B x M x E, the mean of the M learners' losses."""
    # every query against the targets of all processes
    query, target = sharing.gathered(query), sharing.gathered(target)
    if query.dim() == 2:
        query, target = query[:, None], target[:, None]
    each = [
        LOSSES[settings.loss](*learner, settings.kappa, alike)
        for learner in zip(query.float().unbind(1), target.float().unbind(1), strict=True)
    ]
    return torch.stack(each).mean()


class Forward(Protocol):
    """The way from batches to losses, of trainings that step together."""

    def __call__(self, batches: Sequence[Batch], at: int) -> dict[str, Tensor]:
        """`losses` of each training's batch: by name, one number a training."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients of all of them."""
        ...


class Alone:
    """One training by itself, as it is written."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def __call__(self, batches: Sequence[Batch], at: int) -> dict[str, Tensor]:
        [batch], t = batches, self.training
        found = losses(t.model, batch, t.run.settings, at)
        return {name: value[None] for name, value in found.items()}

    def zero_grad(self) -> None:
        self.training.optimizer.zero_grad()


@dataclass(frozen=True)
class Taken:
    """What a step gave, which a GPU may still be at work on.

    Attributes:
        names: of the losses.
        numbers: those of each training, one after another, and whether to stop.
    """

    names: Sequence[str]
    numbers: Tensor

    def read(self) -> tuple[list[dict[str, float]], bool]:
        """The losses of each training by name, and whether to stop; waits for the step.

        All is the same in all processes that train together: none of them goes on alone.
        """
        *found, stop = self.numbers.tolist()
        wide = len(self.names)
        each = [found[first : first + wide] for first in range(0, len(found), wide)]
        return [dict(zip(self.names, numbers, strict=True)) for numbers in each], stop > 0


def take_step(
    trainings: Sequence[Training],
    forward: Forward,
    batches: Sequence[Batch],
    at: int,
    stop: threading.Event,
) -> Taken:
    """Move the weights of each training by its batch."""
    fabric = trainings[0].fabric
    forward.zero_grad()
    found = forward(batches, at)
    fabric.backward(found["loss"].sum())
    for t in trainings:
        clip = t.run.settings.clip
        t.fabric.clip_gradients(t.model, t.optimizer, max_norm=clip, error_if_nonfinite=False)
        t.optimizer.step()
    asked = torch.full((1,), float(stop.is_set()), device=fabric.device)  # no copy to wait for
    numbers = torch.stack(list(found.values()), 1).flatten()
    return Taken(tuple(found), sharing.mean(torch.cat([numbers, asked])))
