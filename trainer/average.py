"""An average of the weights over the steps of a training.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992,
in its exponential form: after each step, average <- d average + (1 - d) weights.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model that follows it by `update_parameters`, buffers too.

    Args:
        decay: d.  After n steps it is min(decay, (1 + n) / (10 + n)), so that the
            first steps are soon forgotten.
    """

    @torch.no_grad()
    def follow(averages: list[Tensor], weights: list[Tensor], steps: Tensor | int) -> None:
        d = min(decay, (1 + int(steps)) / (10 + int(steps)))
        if floats := [i for i, weight in enumerate(weights) if weight.is_floating_point()]:
            torch._foreach_lerp_([averages[i] for i in floats], [weights[i] for i in floats], 1 - d)
        for average, weight in zip(averages, weights, strict=True):
            if not weight.is_floating_point():  # BatchNorm's count of batches
                average.copy_(weight)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
