"""What tests of models share: small models, batches, trainings."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from cqr.trainer.features import RegionBatch
from cqr.trainer.models import MODELS, build
from cqr.trainer.text.vocabulary import TextSpec, WordBatch
from cqr.trainer.training.material import collect
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.steps.losses import batch_classification
from cqr.trainer.training.train import train

NAMES = list(MODELS)
B, D, E = 4, 20, 128
SMALL_LBF = {"width": 16, "heads": 4, "vep_depth": 1, "tep_depth": 1, "fusion_depth": 1}


def model(name, **options):
    torch.manual_seed(0)
    options = {**(SMALL_LBF if name == "lbf" else {}), "embed_dim": E, **options}
    made = build(name, options, region_dim=D, text=TextSpec(max_words=8, words=20)).eval()
    if name == "val":  # half of it does not learn in the first step
        made.weights.data.fill_(0.5)
    return made


def regions(counts=(6, 4, 1, 2), seed=1):
    torch.manual_seed(seed)
    k = max(counts)
    mask = torch.arange(k) < torch.tensor(counts)[:, None]
    parts = torch.randn(len(counts), k, D), torch.rand(len(counts), k, 4)
    return RegionBatch(*(part * mask[..., None] for part in parts), mask)


def words():
    tokens = torch.tensor(((2, 3, 4, 0), (5, 0, 0, 0), (6, 7, 8, 9), (2, 2, 0, 0)))
    return WordBatch(tokens, tokens != 0)


def array(tensor):
    return tensor.detach().double().numpy()


def linear(layer, x):
    return x @ array(layer.weight).T + array(layer.bias)


def in_training(made, reference, read, target):
    """Names of the parameters that no gradient of a step's loss reaches."""
    torch.manual_seed(0)
    out = made(reference, read, target)

    def loss(query, found):
        return batch_classification(query.flatten(1), found.flatten(1))

    total = loss(out.query, out.target)
    for weight, value in out.extra.values():
        total = total + weight * (loss(*value) if isinstance(value, tuple) else value)
    total.backward()
    return {n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}


def settings(name, *options, embed=48, **given):
    """Settings of a small training of a model whose vectors are `embed` wide."""
    small = [f"{key}={value}" for key, value in SMALL_LBF.items()] if name == "lbf" else []
    given = {"epochs": 2, "batch": 16, "warmup": 5, "lr": 3e-3, "validation": 0.2} | given
    return settle({}, {"model": name, **given}, [*small, f"embed_dim={embed}", *options])


def losses(run):
    """Of each epoch in a run's log, in their order."""
    return [
        [value for name, value in line.items() if name.endswith("loss")] for line in run.history()
    ]


def trained(features, chosen, device="cpu", **more):
    material = collect(features)
    run = start(material, chosen, fresh=True)
    train(run, material, device=device, **more)
    return run, material


def interrupted(run, material, **how):
    """Train a run for two steps, then interrupt it."""
    steps = []

    def stop(*_):
        steps.append(0)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(run, material, on_step=stop, **how)


def resumed(features, chosen):
    """Hold a training that was stopped within an epoch against one that was not."""
    whole, material = trained(features, chosen)
    run = start(material, chosen, fresh=True)
    interrupted(run, material, device="cpu")
    assert Run.load(run.path) == start(material, chosen) == run
    train(run, material, device="cpu")
    for file in ("weights", "checkpoint"):
        a, b = (load_file(getattr(r, file)) for r in (whole, run))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    timeless = [
        [{k: v for k, v in line.items() if "second" not in k} for line in r.history()]
        for r in (whole, run)
    ]
    assert timeless[0] == timeless[1]
    return run
