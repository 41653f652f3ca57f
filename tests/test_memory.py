"""The memory of earlier targets: what it holds, what counts as wrong, and that it resumes."""

import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cqr.errors import UserError
from cqr.trainer.losses import batch_classification
from cqr.trainer.material import collect
from cqr.trainer.memory import Memory
from cqr.trainer.settings import Settings, settle
from cqr.trainer.train import start, train

SMALL = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=16"]


def small(**given):
    given = {"epochs": 2, "batch": 16, "warmup": 5, "lr": 3e-3, "memory": 40} | given
    return settle({}, given, SMALL)


@given(
    size=st.integers(1, 12),
    batches=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5), max_size=6),
    now=st.lists(st.integers(0, 5), min_size=1, max_size=5),
)
def test_the_newest_targets_are_held_and_an_own_target_is_never_wrong(size, batches, now):
    memory, seen = Memory(size, (2,)), []
    for number, rows in enumerate(batches):
        vectors = torch.tensor([[float(number), float(row)] for row in rows])
        memory.keep(vectors, torch.tensor(rows))
        seen += [(number, row) for row in rows]
    own = torch.full((len(now), 2), -1.0)
    candidates, wrong = memory.beside(own, torch.tensor(now))
    assert torch.equal(candidates[: len(now)], own)
    assert wrong.shape == (len(now), len(now) + size)
    held = [tuple(map(int, v)) for v in candidates[len(now) :][memory.rows >= 0].tolist()]
    assert held == seen[-size:]
    for i, row in enumerate(now):
        expected = [other != row for other in now]
        expected += [False] * (size - len(held)) + [old != row for _, old in held]
        assert wrong[i].tolist() == expected


def test_the_loss_runs_over_what_is_wrong_beside_each_query_s_own():
    rng = np.random.default_rng(0)
    queries, targets = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    wrong = rng.random((3, 5)) < 0.5
    loss = 0.0
    for i in range(3):
        scores = np.exp(targets @ queries[i])
        loss -= np.log(scores[i] / (scores[i] + scores[wrong[i] & (np.arange(5) != i)].sum())) / 3
    ours = batch_classification(*map(torch.tensor, (queries, targets)), "dot", torch.tensor(wrong))
    assert ours.item() == pytest.approx(loss)


def test_a_training_remembers_and_resumes_exactly(drawn_scenes):
    material = collect(drawn_scenes())
    whole = start(material, small(), fresh=True)
    train(whole, material, device="cpu")
    remembered = load_file(whole.checkpoint)
    assert remembered["memory.vectors"].shape == (40, 16)
    assert set(remembered["memory.rows"].tolist()) <= set(range(len(material.reader)))
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
    again = load_file(run.checkpoint)
    assert all(torch.equal(remembered[name], again[name]) for name in remembered)


def test_learners_remember_each_their_own(drawn_scenes):
    material = collect(drawn_scenes())
    run = start(material, small(learners=2, epochs=1))
    train(run, material, device="cpu")
    assert load_file(run.checkpoint)["memory.vectors"].shape == (40, 2, 8)


def test_a_memory_is_for_batch_classification():
    with pytest.raises(UserError, match="--memory 8 is for --loss batch-classification"):
        Settings(memory=8, loss="soft-triplet")
