"""The losses against a literal transcription of TIRG's equations 4 to 6 in numpy."""

import numpy as np
import pytest
import torch

from cqr.trainer.training import losses


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


def test_sampled_soft_triplet_with_every_negative_is_the_mean_over_all():
    size = 4
    psi, phi = vectors(size)
    x = np.concatenate([psi, phi])
    label = list(range(size)) * 2
    terms = []
    for a in range(2 * size):
        [p] = [b for b in range(2 * size) if b != a and label[b] == label[a]]
        for n in range(2 * size):
            if label[n] != label[a]:
                terms.append(
                    np.log1p(
                        np.exp(kappa("squared-l2", x[a], x[n]) - kappa("squared-l2", x[a], x[p]))
                    )
                )
    ours = losses.soft_triplet_sampled(torch.tensor(psi), torch.tensor(phi), negatives=99)
    assert ours.item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_sampled_soft_triplet_draws_three_wrong_negatives():
    psi, phi = (torch.tensor(v) for v in vectors(6))
    draws = set()
    for seed in range(20):
        torch.manual_seed(seed)
        draws.add(round(losses.soft_triplet_sampled(psi, phi).item(), 9))
    assert len(draws) > 10
    whole = losses.soft_triplet_sampled(psi, phi, negatives=10).item()
    assert np.mean(list(draws)) == pytest.approx(whole, rel=0.2)


@pytest.mark.parametrize("name", ["soft-triplet", "soft-triplet-sampled"])
def test_one_pair_has_no_negative(name):
    with pytest.raises(ValueError, match="batch of two or more"):
        losses.LOSSES[name](torch.ones(1, 3), torch.ones(1, 3), "dot")
