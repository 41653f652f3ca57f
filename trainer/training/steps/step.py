"""One step of a training: what it needs, the loss of its batch, and the weights that move by it."""

import math
import threading
from dataclasses import dataclass
from typing import Any

import lightning_fabric
import numpy as np
import torch

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


def take_step(
    t: Training, batch: Batch, at: int, stop: threading.Event
) -> tuple[float, dict[str, float], bool]:
    """Train on a batch; its loss, by name what in it is the model's own, and whether to stop.

    All three are the same in all processes that train together: none of them goes on alone.
    """
    fabric = t.fabric
    device = fabric.device
    out = t.model(batch.reference.to(device), batch.words.to(device), batch.target.to(device))
    alike = None
    if t.run.settings.negatives == "wrong":
        alike = sharing.gathered(batch.alike.to(device))
    if fabric.world_size > 1:  # what a loss draws must be drawn alike by all
        seed_with(t.run.settings, at)
    loss = _loss(t, out.query, out.target, alike)
    extra = {}
    for name, (weight, value) in out.extra.items():
        extra[name] = weight * (
            _loss(t, value[0], value[1], alike) if isinstance(value, tuple) else value
        )
        loss = loss + extra[name]
    t.optimizer.zero_grad()
    fabric.backward(loss)
    fabric.clip_gradients(
        t.model, t.optimizer, max_norm=t.run.settings.clip, error_if_nonfinite=False
    )
    t.optimizer.step()
    asked = torch.tensor(float(stop.is_set()), device=device)
    numbers = sharing.mean(torch.stack([loss, *extra.values(), asked])).tolist()
    return numbers[0], dict(zip(extra, numbers[1:-1], strict=True)), numbers[-1] > 0


def _loss(
    t: Training, query: torch.Tensor, target: torch.Tensor, alike: torch.Tensor | None
) -> torch.Tensor:
    """Of B x E vectors; of B x M x E, the mean of the M learners' losses."""
    settings = t.run.settings
    # every query against the targets of all processes
    query, target = sharing.gathered(query), sharing.gathered(target)
    if query.dim() == 2:
        query, target = query[:, None], target[:, None]
    losses = [
        LOSSES[settings.loss](*learner, settings.kappa, alike)
        for learner in zip(query.float().unbind(1), target.float().unbind(1), strict=True)
    ]
    return torch.stack(losses).mean()
