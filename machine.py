"""What the machine gives this process: cores, and the device that a name stands for."""

import os
from typing import TYPE_CHECKING

from cqr.errors import UserError, reason

if TYPE_CHECKING:  # torch is heavy, and this is imported before it is known to be needed
    import torch


def cores() -> int:
    """Cores that this process may use: those it was given on Linux, else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_here() -> int:
    """Processes of one training on this machine: those that torchrun or `fabric run` started."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def processes() -> int:
    """The same, on all machines."""
    return int(os.environ.get("WORLD_SIZE", str(processes_here())))


def leads() -> bool:
    """Whether this process writes and prints: of those that torchrun starts, the first."""
    return os.environ.get("RANK", "0") == "0"


def find_device(name: str) -> "torch.device":
    """The device: "auto" is a GPU if torch sees one, else the CPU; "cpu", "cuda", "cuda:1", ...

    Raises:
        UserError: there is no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = reason(error).split(". ")[0][:80]
        raise UserError(f"the device {name} cannot be used ({why}); try --device cpu") from error
    if device.type == "meta":
        raise UserError("the device meta computes nothing; try --device cpu")
    return device


def device_name(device: "torch.device") -> str:
    """ "NVIDIA H100 80GB HBM3", say, or "CPU"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def moved(part: "torch.Tensor", device: "torch.device | str") -> "torch.Tensor":
    """A tensor on a device.

    To a GPU it goes from pinned memory, or the copy would wait for all that the GPU has to do.
    """
    import torch

    if torch.device(device).type == "cuda" and part.device.type == "cpu":
        part = part.pin_memory()
    return part.to(device, non_blocking=True)
