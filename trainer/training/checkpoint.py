"""All that resuming needs, in one file, so that a kill leaves the old state or the new one."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from cqr.atomic import replacing
from cqr.errors import UserError, reason, scarcity
from cqr.typed import built, parsed


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        epoch, step: the next to run; step counts within the epoch.
        best: the highest score of model choice so far; None before the first.
        loss: the sum of the losses of the epoch so far.
        extra: that of each loss of the model's own in it.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    loss: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)


def save(path: Path, where: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write weights, optimizer state and progress, atomically."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    names = _names(model, optimizer)
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{key}.{names[index]}": value for key, value in state.items()}
    save_tensors(path, tensors, {"progress": json.dumps(asdict(where))})


def progress(path: Path) -> Progress:
    """Where the training stands; at the start if there is no checkpoint.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return Progress()
    with _readable(path), safe_open(path, framework="pt") as file:
        where = built(Progress, parsed(file.metadata()["progress"]))
        if min(where.epoch, where.step) < 0:
            raise ValueError(f"epoch {where.epoch}, step {where.step}")
        return where


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore what `save` wrote into a model and its optimizer; nothing if nothing was.

    Raises:
        UserError: the file is damaged or belongs to another model.
    """
    where = progress(path)
    if where == Progress():
        return where
    names = _names(model, optimizer)
    with _readable(path):
        tensors = load_file(path)
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, kind, name = key.split(".", 2)
                state.setdefault(names.index(name), {})[kind] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return where


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Of the weights, in the order in which the optimizer's state counts them."""
    name_of = {id(weight): name for name, weight in model.named_parameters()}
    return [name_of[id(weight)] for group in optimizer.param_groups for weight in group["params"]]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of safetensors, json, torch: whatever does not fit
        if why := scarcity(error):
            raise UserError(f"cannot read {path}: {why}") from error
        raise UserError(
            f"cannot resume from {path} ({reason(error)}): start anew with --fresh"
        ) from error


def save_weights(path: Path, model: nn.Module) -> None:
    save_tensors(path, model.state_dict(), {})


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, whole or not at all."""
    content = serialize(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata
    )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
