"""The losses that tell a text which regions it is about, beside sums written out for one pair."""

import math

import numpy as np
import pytest
import torch

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.locating import locating, pointing, vanished


def scene(numbers: np.ndarray, boxes: np.ndarray, padding: int = 0) -> RegionBatch:
    """One picture, K x D and K x 4, with places that are not real and hold what must not matter."""
    count = len(numbers)
    features = np.concatenate([numbers, np.full((padding, numbers.shape[1]), 9.0)])[None]
    corners = np.concatenate([boxes, np.full((padding, 4), 0.9)])[None]
    mask = torch.arange(count + padding)[None] < count
    return RegionBatch(torch.tensor(features).float(), torch.tensor(corners).float(), mask)


@pytest.fixture
def things():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 7)), rng.random((5, 4))


def written_out(one, other):
    """`vanished`, region by region."""
    (ones, here), (others, there) = one, other
    total = np.zeros((len(ones), len(others)))
    for of_one, of_other in ((ones, others), (here, there)):
        everything = np.concatenate([of_one, of_other])
        pairs = [np.sum((a - b) ** 2) for a in everything for b in everything]
        for i, a in enumerate(of_one):
            for j, b in enumerate(of_other):
                total[i, j] += np.sum((a - b) ** 2) / np.mean(pairs)
    return total.min(1)


@pytest.mark.parametrize("padding", [0, 3])
def test_what_vanished_is_as_written_out(things, padding):
    other = np.random.default_rng(1)
    others = other.normal(size=(4, 7)), other.random((4, 4))
    found = vanished(scene(*things, padding), scene(*others, padding))
    assert found[0, :5].numpy() == pytest.approx(written_out(things, others), rel=1e-3)
    assert not found[0, 5:].any()


def test_only_what_is_not_in_the_target_vanished(things):
    numbers, boxes = things
    changed = numbers.copy()
    changed[2] += 1
    for numbers_then, boxes_then in (
        (changed, boxes),
        (np.delete(numbers, 2, 0), np.delete(boxes, 2, 0)),
    ):
        found = vanished(scene(numbers, boxes), scene(numbers_then, boxes_then))[0]
        assert found[2] > 0.05
        assert found[[0, 1, 3, 4]].max() < 1e-3


def test_all_vanished_where_nothing_is_left(things):
    nothing = scene(np.zeros((0, 7)), np.zeros((0, 4)), padding=2)
    assert vanished(scene(*things), nothing).tolist() == [[1] * 5]
    gone = vanished(nothing, scene(*things))
    assert math.isfinite(locating(torch.ones(1, 2), gone))
    assert math.isfinite(pointing(torch.full((1, 2), -torch.inf), gone))


def test_the_loss_is_that_of_where_the_text_acts(things):
    numbers, boxes = things
    reference = scene(numbers, boxes)
    target = scene(np.delete(numbers, 2, 0), np.delete(boxes, 2, 0))
    gone = vanished(reference, target)
    weight = min(1.0, float(gone.max()))
    moved = torch.tensor([[1.0, 1, 6, 1, 1]])
    assert float(locating(moved, gone)) == pytest.approx(-weight * math.log(0.6), rel=1e-3)
    right, wrong = torch.tensor([[0.0, 0, 1, 0, 0]]), torch.tensor([[0.0, 1, 0, 0, 0]])
    assert float(locating(right, gone)) < 1e-3
    assert float(locating(wrong, gone)) > 5 * weight


def test_pointing_is_the_cross_entropy_of_scores(things):
    numbers, boxes = things
    reference = scene(numbers, boxes, padding=2)
    gone = vanished(reference, scene(np.delete(numbers, 2, 0), np.delete(boxes, 2, 0)))
    weight = min(1.0, float(gone.max()))
    scores = torch.tensor([[0.0, 0, 2, 0, 0, -torch.inf, -torch.inf]], requires_grad=True)
    loss = pointing(scores, gone)
    share = math.exp(2) / (4 + math.exp(2))
    assert float(loss.detach()) == pytest.approx(-weight * math.log(share), rel=1e-3)
    loss.backward()
    slope = weight * np.array([*[(1 - share) / 4] * 2, share - 1, *[(1 - share) / 4] * 2, 0, 0])
    np.testing.assert_allclose(scores.grad[0], slope, atol=1e-3)


def test_a_pair_of_which_nothing_vanished_hardly_counts(things):
    numbers, boxes = things
    more = scene(np.concatenate([numbers, numbers[:1] + 1]), np.concatenate([boxes, boxes[:1]]))
    gone = vanished(scene(numbers, boxes), more)
    assert float(locating(torch.rand(1, 5), gone)) < 1e-3
    assert float(pointing(torch.rand(1, 5), gone)) < 1e-3
