"""Muon for linear maps and AdamW for all else, as one optimizer, against PyTorch's own two."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cqr.trainer.training import checkpoint
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.steps.optimizers import optimizer_of

SETTINGS = Settings(lr=0.01, muon_lr=0.03, weight_decay=0.1)


def model() -> nn.Module:
    """Weights of every kind, those of linear maps between others."""
    torch.manual_seed(0)
    out = nn.Module()
    out.word = nn.Embedding(7, 6)
    out.first = nn.Linear(6, 5)
    out.norm = nn.LayerNorm(5)
    out.second = nn.Linear(5, 4, bias=False)
    out.gate = nn.Linear(4, 1)
    out.scale = nn.Parameter(torch.ones(()))
    return out


def loss(module: nn.Module, step: int) -> torch.Tensor:
    words = torch.arange(step, step + 3) % 7
    states = module.second(module.norm(module.first(module.word(words))).tanh())
    return (module.scale * module.gate(states).squeeze(-1) - words).square().mean()


def steps(module: nn.Module, optimizers: list[torch.optim.Optimizer], at: range) -> None:
    for step in at:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(module, step).backward()
        for optimizer in optimizers:
            optimizer.step()


def test_it_is_the_two_of_pytorch_side_by_side():
    ours, theirs = model(), model()
    ours.again = ours.first  # the same weights by another name
    steps(ours, [optimizer_of(ours, SETTINGS, fused=True)], range(6))
    matrices = [theirs.first.weight, theirs.second.weight]
    others = [
        theirs.word.weight, theirs.first.bias, theirs.norm.weight, theirs.norm.bias,
        theirs.gate.weight, theirs.gate.bias, theirs.scale,
    ]  # fmt: skip
    both = [
        torch.optim.Muon(matrices, 0.03, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, 0.01, weight_decay=0.1, fused=True),
    ]
    steps(theirs, both, range(6))
    assert len(list(theirs.parameters())) == len(matrices) + len(others)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert not torch.equal(one, dict(model().named_parameters())[name]), name


def test_a_map_that_is_wide_both_ways_is_left_to_adamw():
    wide = nn.ModuleList(nn.Linear(*size, bias=False) for size in ((2049, 2049), (2048, 2049)))
    first, second = wide
    adamw, muon = optimizer_of(wide, SETTINGS, fused=False).param_groups
    assert [id(p) for p in adamw["params"]] == [id(first.weight)]
    assert [id(p) for p in muon["params"]] == [id(second.weight)]


def test_each_group_has_a_peak_of_its_own():
    groups = optimizer_of(model(), SETTINGS, fused=False).param_groups
    assert [group["initial_lr"] for group in groups] == [0.01, 0.03]
    [alone] = optimizer_of(model(), replace(SETTINGS, muon_lr=0), fused=False).param_groups
    assert len(alone["params"]) == len(list(model().parameters()))


@pytest.mark.parametrize("rate", [0.0, 0.03])
def test_a_checkpoint_holds_its_state(tmp_path: Path, rate: float):
    settings = replace(SETTINGS, muon_lr=rate)
    whole = model()
    steps(whole, [optimizer_of(whole, settings, fused=True)], range(6))
    begun = model()
    optimizer = optimizer_of(begun, settings, fused=True)
    steps(begun, [optimizer], range(3))
    where = checkpoint.Progress(step=3)
    checkpoint.save(tmp_path / "x.safetensors", where, begun, optimizer)
    gone_on = model()
    optimizer = optimizer_of(gone_on, settings, fused=True)
    assert checkpoint.load(tmp_path / "x.safetensors", gone_on, optimizer) == where
    steps(gone_on, [optimizer], range(3, 6))
    for (name, one), other in zip(whole.named_parameters(), gone_on.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_of_an_optimizer_of_all_weights_a_checkpoint_is_as_it_was(tmp_path: Path):
    """Names of `model.named_parameters()` with what AdamW keeps of each, as version 0.1 wrote."""
    module = model()
    optimizer = torch.optim.AdamW(module.parameters())
    steps(module, [optimizer], range(2))
    checkpoint.save(tmp_path / "x.safetensors", checkpoint.Progress(step=2), module, optimizer)
    content = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    kept = {
        f"optimizer.{kind}.{name}"
        for name, _ in module.named_parameters()
        for kind in ("step", "exp_avg", "exp_avg_sq")
    }
    assert {name for name in header if name.startswith("optimizer.")} == kept
