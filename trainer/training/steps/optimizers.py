"""What moves a model's weights: AdamW, and Muon those of its linear maps, where it is asked for."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cqr.trainer.training.settings import Settings

WIDEST = 2048
"""The narrower side of the widest map that Muon moves.

A step of Muon takes some 15 products of a map with itself, whose work grows with the square of
that side and not with the batch: of a map of 4,096 by 4,096 hundreds of times what the batch is.
"""


def optimizer_of(module: nn.Module, settings: Settings, fused: bool) -> Optimizer:
    """An optimizer of all weights of a model; each group's peak rate is its `initial_lr`.

    Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; its steps
    are as large as AdamW's of the same rate, after Liu et al., "Muon is Scalable for LLM Training",
    2025.

    Args:
        fused: of AdamW's way.
    """
    decay = settings.weight_decay
    matrices = _matrices(module) if settings.muon_lr else []
    taken = {id(matrix) for matrix in matrices}
    rest = [weight for weight in module.parameters() if id(weight) not in taken]
    adamw = torch.optim.AdamW(rest, settings.lr, weight_decay=decay, fused=fused)
    parts: list[Optimizer] = [adamw]
    if matrices:
        rate, like = settings.muon_lr, "match_rms_adamw"
        parts.append(torch.optim.Muon(matrices, rate, weight_decay=decay, adjust_lr_fn=like))
    for part in parts:
        for group in part.param_groups:
            group["initial_lr"] = group["lr"]
    return _Together(parts) if len(parts) > 1 else adamw


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of linear maps to more than one number and of `WIDEST` at most, each once."""
    linear = {id(part.weight) for part in module.modules() if isinstance(part, nn.Linear)}
    return [
        weight
        for weight in module.parameters()
        if id(weight) in linear and len(weight) > 1 and min(weight.shape) <= WIDEST
    ]


class _Together(Optimizer):
    """Several optimizers of one model as one: whose gradients are clipped, scaled and kept so."""

    def __init__(self, parts: list[Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """The parts' groups and states are this one's own."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state
