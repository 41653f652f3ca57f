"""Ranks and recall against naive loops that share no code with them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.trainer import metrics


def naive(queries, gallery, reference, correct, depth):
    """Sort the whole gallery for each query, slowly."""
    ranks, tops = [], []
    for q, r, c in zip(queries, reference, correct, strict=True):
        scores = [(-float(np.dot(q, g)), place) for place, g in enumerate(gallery)]
        order = [place for _, place in sorted(scores) if place != r]
        found = [order.index(place) + 1 for place in c]
        ranks.append(min(found, default=0))
        tops.append((order + [-1] * depth)[:depth])
    return ranks, tops


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    q=st.integers(1, 13),
    g=st.integers(1, 19),
    depth=st.integers(1, 25),
    block=st.sampled_from([1, 11, 40, 10**6]),
)
def test_ranks_and_tops_are_those_of_a_full_sort(seed, q, g, depth, block):
    rng = np.random.default_rng(seed)
    # small integers: exact dot products and many ties
    queries, gallery = rng.integers(-2, 3, (q, 3)), rng.integers(-2, 3, (g, 3))
    reference = rng.integers(-1, g, q)
    correct = [
        np.setdiff1d(rng.choice(g, rng.integers(0, min(g, 4) + 1), replace=False), [r])
        for r in reference
    ]
    before, metrics.BLOCK = metrics.BLOCK, block
    try:
        ours = metrics.rank(
            torch.tensor(queries).float(), torch.tensor(gallery).float(), reference, correct, depth
        )
    finally:
        metrics.BLOCK = before
    ranks, tops = naive(queries, gallery, reference, correct, depth)
    assert ours.rank.tolist() == ranks
    assert ours.top.tolist() == tops
    for row, (places, scores) in enumerate(zip(ours.top, ours.scores, strict=True)):
        expected = [np.nan if p < 0 else queries[row] @ gallery[p] for p in places]
        np.testing.assert_array_equal(scores, np.array(expected, np.float32))


def test_no_query_gives_no_rank():
    ours = metrics.rank(torch.zeros(0, 3), torch.ones(4, 3), np.empty(0, np.int64), [], 2)
    assert (ours.rank.shape, ours.top.shape) == ((0,), (0, 2))


@pytest.mark.parametrize(("k", "expected"), [(1, 20.0), (2, 40.0), (5, 60.0), (100, 80.0)])
def test_recall_counts_found_queries_among_all(k, expected):
    assert metrics.recall_at(np.array([1, 2, 0, 5, 6]), k) == pytest.approx(expected)


@pytest.mark.parametrize("correct", [0, 1, 3, 6])
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_chance_is_the_share_of_all_orders_that_hit(correct, k):
    size = 6
    subsets = list(itertools.combinations(range(size), min(k, size)))
    hits = sum(any(place < correct for place in subset) for subset in subsets)
    chance = metrics.chance_at(np.array([correct]), np.array([size]), k)
    assert chance == pytest.approx(100 * hits / len(subsets))
