"""What the steps run on: a device, a precision, and the processes that train together."""

from typing import Any, cast

import lightning_fabric
import torch

from cqr.errors import UserError
from cqr.machine import find_device, processes, processes_here
from cqr.trainer.models import sharing
from cqr.trainer.training.checkpoint import Progress
from cqr.trainer.training.runs import Run


def fabric_of(device: str, precision: str | None) -> lightning_fabric.Fabric:
    """What a training runs on, launched; device and precision as `train` takes them.

    Raises:
        UserError: no such device, or a precision that no model is made for.
    """
    if precision and precision.endswith("-true") and precision != "32-true":
        raise UserError(
            f"--precision {precision} keeps all numbers in {precision.split('-')[0]}, which these "
            "models are not made for: choose 32-true, bf16-mixed or 16-mixed"
        )
    named = find_device(device)
    local, world = processes_here(), processes()  # one a device
    fabric = lightning_fabric.Fabric(
        accelerator=named.type,
        devices=local if world > 1 or named.index is None else [named.index],
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=cast(Any, precision or ("bf16-mixed" if named.type == "cuda" else "32-true")),
    )
    # It would round all that is given, the corners of boxes too, to 8 bits; autocast does what is
    # to be done in 16.
    fabric.strategy.precision.convert_input = lambda data: data  # type: ignore[method-assign]
    fabric.launch()
    return fabric


def fused(fabric: lightning_fabric.Fabric) -> bool:
    """Whether AdamW may be one pass, which in 16-mixed would undo the clip of gradients."""
    return not fabric.strategy.precision.precision.startswith("16")


def check_whole(fabric: lightning_fabric.Fabric) -> None:
    """Raises UserError where a step is not one process's, or scales its losses by what it finds."""
    if fabric.world_size > 1:
        raise UserError(
            "--compile and --batched are of one process: leave them out, or start without torchrun"
        )
    if not fused(fabric):
        raise UserError(
            "--compile and --batched do not go with --precision 16-mixed: choose bf16-mixed or"
            " 32-true"
        )


def check_divisible(batch: int, processes: int) -> None:
    """Raises UserError where processes would have parts of a batch that differ in size."""
    if batch % processes:
        raise UserError(
            f"a batch of {batch} queries cannot be divided evenly among {processes} processes: "
            f"give --batch {max(2, batch // processes) * processes} or start another number of them"
        )


def check_together(run: Run, progress: Progress, fabric: lightning_fabric.Fabric) -> None:
    """Raises UserError where not all processes begin at the same step."""
    here = torch.tensor([progress.epoch, progress.step], device=fabric.device).float()
    if not torch.equal(sharing.mean(here), here):
        raise UserError(
            f"not all processes see the checkpoint {run.checkpoint}: keep it on storage that is"
            " shared by all machines, or start anew with --fresh"
        )
