"""A batch that several processes share, and what of a model sees more of it than one query.

Process r of W has the rows r, r + W, ... of a batch.  Each computes the loss of the whole batch
from the vectors of all, and differentiates it; `gathered` adds up what all of them send back
to a row, W times its gradient, and the mean over processes that DDP then takes of each
parameter's gradient is that of one process with the whole batch.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


def processes() -> int:
    """How many train together: 1 but under torchrun and its like."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(rows: Tensor) -> Tensor:
    """B/W x ... rows of each process as B x ..., in the order of the batch, in all processes."""
    return _every(rows).transpose(0, 1).flatten(0, 1) if processes() > 1 else rows


def mean(numbers: Tensor) -> Tensor:
    """Of numbers, each that of this process, the mean over all processes; without gradient."""
    return _every(numbers.detach()).mean(0) if processes() > 1 else numbers.detach()


def with_shared_norms(module: Module) -> Module:
    """Give every batch norm of a model the statistics of the whole batch, in place.

    Parameters, buffers and their names stay.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, _SharedNorm(child))
        else:
            with_shared_norms(child)
    return module


class _SharedNorm(_BatchNorm):
    """A batch norm over the rows of all processes, of which each may have another number.

    PyTorch's SyncBatchNorm is the same on a GPU, and refuses a CPU.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self._parameters, self._buffers = norm._parameters, norm._buffers

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = input.float()
        axes = [0, *range(2, x.dim())]
        count = x.new_full((1, x.shape[1]), x[:, 0].numel())
        own = [count, x.mean(axes)[None], x.var(axes, correction=0)[None]]
        counts, means, variances = _every(torch.cat(own)).unbind(1)  # each W x C
        share = counts / counts.sum(0)
        centre = (share * means).sum(0)
        variance = (share * (variances + (means - centre).square())).sum(0)
        with torch.no_grad():
            total = counts.sum(0)
            self.running_mean.lerp_(centre, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
            self.num_batches_tracked += 1
        across = (1, -1, *[1] * (x.dim() - 2))
        scale = (variance + self.eps).rsqrt()
        out = (x - centre.view(across)) * scale.view(across)
        if self.affine:
            out = out * self.weight.view(across) + self.bias.view(across)
        return out.to(input.dtype)


class _Every(torch.autograd.Function):
    """W x ... of all processes; back to each goes the sum of what all send."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(processes())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        sent = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(sent)
        return sent[dist.get_rank()]


def _every(own: Tensor) -> Tensor:
    every: Tensor = _Every.apply(own)
    return every
