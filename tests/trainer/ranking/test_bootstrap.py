"""The paired bootstrap against every resample there is, and against plain loops."""

import itertools
import statistics
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.trainer.ranking.bootstrap import in_deviations, interval, paired, weights_of


def every_resample(differences):
    """The means of all Q^Q resamples, exact and sorted."""
    size = len(differences)
    return sorted(sum(draw) / size for draw in itertools.product(differences, repeat=size))


thirds = st.lists(st.integers(-3, 3), min_size=2, max_size=4)


@settings(deadline=None, max_examples=30)
@given(thirds)
def test_it_agrees_with_every_resample_of_a_few_queries(numbers):
    """Hits averaged over three seeds; sums that are 0 must not be a little more or less."""
    exact = every_resample([Fraction(n, 3) for n in numbers])
    second = np.full(len(numbers), 1 / 3)
    found = paired(second + np.array(numbers) / 3, second)
    share = sum(mean <= 0 for mean in exact) / len(exact)
    assert found.mean == pytest.approx(sum(numbers) / 3 / len(numbers))
    assert found.not_better == pytest.approx(share, abs=0.025)
    at = [sum(mean <= edge + 1e-9 for mean in exact) for edge in (found.low, found.high)]
    below = [sum(mean < edge - 1e-9 for mean in exact) for edge in (found.low, found.high)]
    for quantile, most, least in zip((0.025, 0.975), at, below, strict=True):
        assert least / len(exact) - 0.01 <= quantile <= most / len(exact) + 0.01


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_what_holds_for_any_hits(pairs):
    first, second = np.array(pairs).T / 5
    found, other = paired(first, second), paired(second, first)
    assert (first - second).min() - 1e-9 <= found.low <= found.high <= (first - second).max() + 1e-9
    assert other.mean == pytest.approx(-found.mean)
    assert found == paired(first, second)
    if (first > second).all():
        assert found.not_better == 0
    if (first <= second).all():
        assert found.not_better == 1
    assert found.not_better + other.not_better >= 0.95  # a resample is a tie for both


def test_a_plain_loop_over_many_queries_gives_the_same():
    rng = np.random.default_rng(5)
    first = rng.binomial(5, 0.62, 400) / 5
    second = rng.binomial(5, 0.60, 400) / 5
    draws = [np.mean((first - second)[rng.integers(0, 400, 400)]) for _ in range(4000)]
    found = paired(first, second)
    assert found.low == pytest.approx(np.percentile(draws, 2.5), abs=3e-3)
    assert found.high == pytest.approx(np.percentile(draws, 97.5), abs=3e-3)
    assert found.not_better == pytest.approx(np.mean(np.array(draws) <= 0), abs=0.03)


def test_weights_make_the_mean_that_over_parts():
    first, second = np.array([1.0, 0, 1, 1, 0]), np.array([0.0, 0, 1, 0, 1])
    part = np.array([0, 0, 0, 1, 1])
    weights = 5 / (2 * np.array([3, 3, 3, 2, 2]))
    means = [(first - second)[part == p].mean() for p in (0, 1)]
    assert paired(first, second, weights).mean == pytest.approx(np.mean(means))


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=6))
def test_deviations_over_seeds_are_those_of_the_statistics_module(pairs):
    differences = [a - b for a, b in pairs]
    found = in_deviations(*np.array(pairs, float).T)
    if len(set(differences)) < 2:
        assert found is None
    else:
        wanted = statistics.mean(differences) / statistics.stdev(differences)
        assert found == pytest.approx(wanted)


def test_the_interval_of_a_share_is_near_that_of_the_binomial():
    ranks = np.where(np.arange(400) < 300, 3, 0)
    low, high = interval(ranks, 5)
    spread = 196 * (0.75 * 0.25 / 400) ** 0.5
    assert low == pytest.approx(75 - spread, abs=0.6)
    assert high == pytest.approx(75 + spread, abs=0.6)
    assert interval(ranks, 2) == (0, 0)


def test_parts_count_alike_however_many_queries_they_have():
    queries = pd.DataFrame({"part": ["a"] * 90 + ["b"] * 10})
    weights = weights_of(queries, "part")
    assert weights.mean() == pytest.approx(1)
    assert weights[:90].sum() == pytest.approx(weights[90:].sum())
    ranks = np.where(queries["part"] == "b", 1, 0)  # recall is the mean of 0 and 100
    low, high = interval(ranks, 1, weights)
    assert low < 50 < high
    assert list(weights_of(queries, None)) == [1] * 100
