"""Steps whose work depends on shapes alone: of one training, or of several as one batched model.

So they can be compiled, and several models that differ in their weights become one whose weights
have one more dimension: a GPU that one small model leaves idle works on all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from cqr.errors import UserError, reason
from cqr.trainer.models.attention import everywhere
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.steps.batches import Batch
from cqr.trainer.training.steps.step import Training, losses

WORDS = 8
"""Places for words are a multiple of it: each number of places is compiled by itself."""

Parts = dict[str, Tensor]


class Compiled:
    """One training, compiled: what a step does is settled in its first, which takes minutes.

    On a GPU the kernels of a step are one graph, which the processor starts once.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        module, settings = training.module, training.run.settings

        def work(parts: Parts) -> Parts:
            return losses(module, Batch.of(parts), settings, 0)

        self._work = compiled(work)

    def __call__(self, batches: Sequence[Batch], at: int) -> Parts:
        [batch], t = batches, self.training
        [parts] = _filled(t, [batch], fixed=True)
        found = _on_shapes(t, self._work, parts)
        return {name: value[None] for name, value in found.items()}

    def zero_grad(self) -> None:
        self.training.optimizer.zero_grad()


class Batched:
    """Several trainings whose models differ in their weights alone, as one model.

    A weight of each is a slice of one tensor, and its gradient of another, so that each training's
    own optimizer moves what all of them compute with.

    Raises:
        UserError: an epoch has more steps for one of them than for another, or their models have
            weights of other shapes, as of other vocabularies.
    """

    def __init__(self, trainings: Sequence[Training], compile: bool) -> None:
        self.trainings = trainings
        steps = [t.steps for t in trainings]
        if len(set(steps)) > 1:
            raise UserError(_apart("the steps of an epoch", steps))
        modules = [t.module for t in trainings]
        self._weights = _stacked([dict(module.named_parameters()) for module in modules])
        self._buffers = _stacked([dict(module.named_buffers()) for module in modules])
        self._grads = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            weight.requires_grad_().grad = self._grads[name]
            for number, module in enumerate(modules):
                module.get_parameter(name).grad = self._grads[name][number]
        work = _of_each(modules[0], trainings[0].run.settings)
        self._work = compiled(work) if compile else work
        self._compile = compile

    def __call__(self, batches: Sequence[Batch], at: int) -> Parts:
        t = self.trainings[0]
        filled = _filled(t, batches, self._compile)
        parts = {name: torch.stack([each[name] for each in filled]) for name in filled[0]}
        with sdpa_kernel(SDPBackend.MATH):  # the others are not for batched models everywhere
            return _on_shapes(t, self._work, self._weights, self._buffers, parts)

    def zero_grad(self) -> None:
        """In place: the slices are what the optimizers know."""
        torch._foreach_zero_(list(self._grads.values()))


def _of_each(module: nn.Module, settings: Settings) -> Callable[[Parts, Parts, Parts], Parts]:
    """The losses of each of M models, by M x ... weights, buffers, and parts of batches."""

    def work(weights: Parts, buffers: Parts, parts: Parts) -> Parts:
        def model(*args: Any) -> Any:
            return functional_call(module, (weights, buffers), args)

        return losses(model, Batch.of(parts), settings, 0)

    batched: Callable[[Parts, Parts, Parts], Parts] = torch.vmap(work, randomness="different")
    return batched


def _stacked(each: Sequence[Parts]) -> Parts:
    """M x ... of what M models have by one name, which becomes theirs."""
    found = {}
    for name, first in each[0].items():
        if any(other[name].shape != first.shape for other in each):
            raise UserError(_apart(f"the sizes of {name}", [len(other[name]) for other in each]))
        found[name] = torch.stack([other[name].detach() for other in each])
        for number, other in enumerate(each):
            other[name].data = found[name][number]
    return found


def _apart(what: str, sizes: Sequence[int]) -> str:
    said = ", ".join(map(str, sizes))
    return (
        f"--batched: {what} differ by the seed ({said}), since each holds out other queries: "
        "add --set select=last, or leave --batched out"
    )


def _filled(t: Training, batches: Sequence[Batch], fixed: bool) -> list[Parts]:
    """All in one shape; fixed: which those of other steps have, too."""
    k = max(part.mask.shape[1] for b in batches for part in (b.reference, b.target))
    n = max(batch.words.mask.shape[1] for batch in batches)
    if fixed:
        reader = t.material.reader
        k = 1 if reader.kind == "whole" else reader.k
        n = min(-(-n // WORDS) * WORDS, t.words.spec.max_words)
    return [batch.filled(k, n).parts() for batch in batches]


def _on_shapes(t: Training, work: Callable[..., Parts], *given: Parts) -> Parts:
    """What `work` gives, which is to depend on shapes alone, in the training's precision."""
    with possible(t.run.settings), everywhere(), t.fabric.autocast():
        return work(*given)


@contextmanager
def possible(settings: Settings) -> Iterator[None]:
    """Raises UserError where PyTorch cannot compile what a model does, or not for several."""
    try:
        yield
    except RuntimeError as error:
        why = reason(error).split(". ")[0][:120]
        if isinstance(error, torch._dynamo.exc.TorchDynamoException):
            flag, what = "--compile", "be compiled"
        elif "vmap" in str(error) or "Batching rule" in str(error):
            flag, what = "--batched", "be trained with several seeds as one batched model"
        else:
            raise
        raise UserError(f"{settings.model} cannot {what} ({why}): leave out {flag}") from error


def compiled(work: Callable[..., Parts]) -> Callable[..., Parts]:
    """The same as one graph, without a return to Python; made in the first call."""
    made: Callable[..., Parts] = torch.compile(
        work, fullgraph=True, dynamic=False, mode="reduce-overhead"
    )

    def run(*given: Parts) -> Parts:
        torch.compiler.cudagraph_mark_step_begin()
        return made(*given)

    return run
