"""The losses against a literal transcription of TIRG's equations 4 to 6 in numpy."""

import itertools

import numpy as np
import pytest
import torch

from cqr.trainer.training.steps import losses


def kappa(kind, a, b):
    return float(a @ b) if kind == "dot" else -float(((a - b) ** 2).sum())


def vectors(size, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(size, width)), rng.normal(size=(size, width))


@pytest.mark.parametrize("kind", ["dot", "squared-l2"])
@pytest.mark.parametrize("size", [2, 3, 11])
def test_batch_classification(kind, size):
    psi, phi = vectors(size)
    total = 0.0
    for i in range(size):
        scores = [np.exp(kappa(kind, psi[i], phi[j])) for j in range(size)]
        total += -np.log(scores[i] / sum(scores))
    ours = losses.batch_classification(torch.tensor(psi), torch.tensor(phi), kind)
    assert ours.item() == pytest.approx(total / size, rel=1e-9)


@pytest.mark.parametrize("kind", ["dot", "squared-l2"])
@pytest.mark.parametrize("size", [2, 3, 11])
def test_soft_triplet(kind, size):
    psi, phi = vectors(size)
    total = 0.0
    for i in range(size):
        for m in range(size):
            if m != i:
                margin = kappa(kind, psi[i], phi[m]) - kappa(kind, psi[i], phi[i])
                total += np.log(1 + np.exp(margin))
    ours = losses.soft_triplet(torch.tensor(psi), torch.tensor(phi), kind)
    assert ours.item() == pytest.approx(total / ((size - 1) * size), rel=1e-9)


@pytest.mark.parametrize("kind", ["dot", "squared-l2"])
def test_similarities(kind):
    psi, phi = vectors(4)
    ours = losses.similarities(torch.tensor(psi), torch.tensor(phi), kind)
    expected = [[kappa(kind, a, b) for b in phi] for a in psi]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("loss", [losses.batch_classification, losses.soft_triplet])
def test_kappa_is_the_dot_product_unless_said(loss):
    psi, phi = (torch.tensor(v) for v in vectors(4))
    assert loss(psi, phi) == loss(psi, phi, "dot") != loss(psi, phi, "squared-l2")
    assert torch.equal(losses.similarities(psi, phi), psi @ phi.T)


@pytest.mark.parametrize("name", ["batch-classification", "soft-triplet"])
def test_an_unknown_kappa_is_refused(name):
    with pytest.raises(ValueError, match="kappa 'cosine' is not one of dot, squared-l2"):
        losses.LOSSES[name](torch.ones(2, 3), torch.ones(2, 3), "cosine")


def triplets(psi, phi):
    """For each of the 2B anchors of TIRG's code, the term of each of its 2B - 2 negatives."""
    size = len(psi)
    x = np.concatenate([psi, phi])
    label = list(range(size)) * 2
    terms = []
    for a in range(2 * size):
        [p] = [b for b in range(2 * size) if b != a and label[b] == label[a]]
        near = kappa("squared-l2", x[a], x[p])
        others = [n for n in range(2 * size) if label[n] != label[a]]
        terms.append([np.log1p(np.exp(kappa("squared-l2", x[a], x[n]) - near)) for n in others])
    return terms


@pytest.mark.parametrize("size", [2, 4])
def test_sampled_soft_triplet_with_every_negative_is_the_mean_over_all(size):
    psi, phi = vectors(size)
    ours = losses.soft_triplet_sampled(torch.tensor(psi), torch.tensor(phi), negatives=99)
    assert ours.item() == pytest.approx(np.mean(triplets(psi, phi)), rel=1e-9)


def test_sampled_soft_triplet_draws_exactly_three_distinct_wrong_negatives():
    """Of three pairs each anchor has four negatives: to draw three is to leave one out."""
    psi, phi = vectors(3)
    terms = triplets(psi, phi)
    left_out = itertools.product(*terms)
    possible = np.array([(np.sum(terms) - sum(out)) / (6 * 3) for out in left_out])
    found = set()
    for seed in range(20):
        torch.manual_seed(seed)
        ours = losses.LOSSES["soft-triplet-sampled"](torch.tensor(psi), torch.tensor(phi), "dot")
        found.add(int(np.abs(possible - ours.item()).argmin()))
        assert np.abs(possible - ours.item()).min() < 1e-12
    assert len(found) > 15


def test_the_losses_have_the_names_that_settings_give_them():
    assert set(losses.LOSSES) == {"batch-classification", "soft-triplet", "soft-triplet-sampled"}
    psi, phi = (torch.tensor(v) for v in vectors(3))
    for name, loss in (
        ("batch-classification", losses.batch_classification),
        ("soft-triplet", losses.soft_triplet),
    ):
        assert losses.LOSSES[name](psi, phi, "squared-l2") == loss(psi, phi, "squared-l2")


@pytest.mark.parametrize("name", ["soft-triplet", "soft-triplet-sampled"])
def test_one_pair_has_no_negative(name):
    with pytest.raises(ValueError, match="batch of two or more"):
        losses.LOSSES[name](torch.ones(1, 3), torch.ones(1, 3), "dot")


ALIKE = np.array([[0, 0], [1, 1], [0, 2], [2, 1]])
"""Targets 0 and 2 have one description; 1 and 3 answer one question."""


def wrong(i, j):
    return all(ALIKE[i] != ALIKE[j])


def test_targets_that_are_equally_right_are_no_negatives():
    psi, phi = vectors(4)
    scores = [[kappa("dot", a, b) for b in phi] for a in psi]
    classes, margins = [], []
    for i in range(4):
        others = [scores[i][j] for j in range(4) if wrong(i, j)]
        classes.append(np.log(np.exp([scores[i][i], *others]).sum()) - scores[i][i])
        margins += [np.log1p(np.exp(s - scores[i][i])) for s in others]
    given = torch.tensor(psi), torch.tensor(phi), "dot", torch.from_numpy(ALIKE)
    assert len(margins) == 8
    assert losses.batch_classification(*given).item() == pytest.approx(np.mean(classes), rel=1e-9)
    assert losses.soft_triplet(*given).item() == pytest.approx(np.mean(margins), rel=1e-9)


def test_no_negative_is_drawn_that_is_equally_right():
    psi, phi = vectors(4)
    x, terms = np.concatenate([psi, phi]), []
    for a in range(8):
        near = kappa("squared-l2", x[a], x[(a + 4) % 8])
        there = [n for n in range(8) if wrong(a % 4, n % 4)]
        terms += [np.log1p(np.exp(kappa("squared-l2", x[a], x[n]) - near)) for n in there]
    ours = losses.soft_triplet_sampled(
        torch.tensor(psi), torch.tensor(phi), negatives=99, alike=torch.from_numpy(ALIKE)
    )
    assert len(terms) == 8 * 4
    assert ours.item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_a_batch_whose_targets_are_all_right_teaches_nothing(name):
    psi, phi = (torch.tensor(v, requires_grad=True) for v in vectors(3))
    loss = losses.LOSSES[name](psi, phi, "dot", torch.zeros(3, 2, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not psi.grad.any()
