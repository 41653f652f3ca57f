"""The average of the weights: its arithmetic, and that it is what is kept and resumed."""

import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cqr.errors import UserError
from cqr.trainer.average import averaged
from cqr.trainer.material import collect
from cqr.trainer.settings import Settings, settle
from cqr.trainer.train import start, train

SMALL = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=16"]


def small(**given):
    given = {"epochs": 2, "batch": 16, "warmup": 5, "lr": 3e-3, "average": 0.9} | given
    return settle({}, given, SMALL)


def test_the_average_forgets_its_first_steps_and_follows_weights_and_buffers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = averaged(model, decay=0.6)
    names = list(model.state_dict())
    expected = {}
    for step in range(8):
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter)
        model(torch.randn(5, 3))  # moves the running mean, and counts a batch
        average.update_parameters(model)
        now = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        if not step:
            expected = now
            continue
        d = min(0.6, (1 + step) / (10 + step))
        for name in names:
            counts = name.endswith("num_batches_tracked")
            expected[name] = now[name] if counts else d * expected[name] + (1 - d) * now[name]
    found = average.module.state_dict()
    for name in names:
        np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=1e-5, atol=1e-6)


def test_what_is_kept_is_the_average_and_training_goes_its_own_way(drawn_scenes):
    material = collect(drawn_scenes())
    kept = {}
    for average in (0.0, 0.9):
        run = start(material, small(average=average))
        train(run, material, device="cpu")
        state = load_file(run.checkpoint)
        weights = load_file(run.weights)
        trained = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        kept[average] = trained
        same = all(torch.equal(weights[name], trained[name]) for name in weights)
        assert same == (not average)
    assert all(torch.equal(kept[0.0][name], kept[0.9][name]) for name in kept[0.0])


def test_a_resumed_training_keeps_the_same_average(drawn_scenes):
    material = collect(drawn_scenes())
    whole = start(material, small(), fresh=True)
    train(whole, material, device="cpu")
    run = start(material, small(), fresh=True)
    steps = 0

    def stop(*_):
        nonlocal steps
        steps += 1
        if steps == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(run, material, on_step=stop, device="cpu")
    train(run, material, device="cpu")
    for file in ("weights", "checkpoint"):
        one, two = (load_file(getattr(r, file)) for r in (whole, run))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("average", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(average):
    with pytest.raises(UserError, match="--average"):
        Settings(average=average)
