"""Ranks within an image set and average precision, against loops that share no code with them."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cqr.trainer.encode import Vectors
from cqr.trainer.measures import average_precision_at, measure, rank_among
from cqr.trainer.queries import Dataset, Protocol, tasks


@given(seed=st.integers(0, 2**31), q=st.integers(0, 7), g=st.integers(1, 9), m=st.integers(0, 5))
def test_members_rank_by_score_then_by_their_place_in_the_gallery(seed, q, g, m):
    rng = np.random.default_rng(seed)
    # small integers: exact dot products and many ties
    queries, gallery = rng.integers(-2, 3, (q, 3)), rng.integers(-2, 3, (g, 3))
    members = np.full((q, m), -1)
    for row in members:
        some = rng.permutation(g)[: rng.integers(0, m + 1)]
        row[rng.permutation(m)[: len(some)]] = some
    ranks, ordered = rank_among(
        torch.tensor(queries).float(), torch.tensor(gallery).float(), members
    )
    assert ranks.shape == ordered.shape == (q, m)
    for query, row, rank, order in zip(queries, members, ranks, ordered, strict=True):
        expected = sorted((-int(query @ gallery[place]), place) for place in row if place >= 0)
        best = [place for _, place in expected]
        assert order.tolist() == best + [-1] * (m - len(best))
        assert rank.tolist() == [best.index(place) + 1 if place >= 0 else 0 for place in row]


def naive(top, relevant, number, k):
    """Precision at each hit, as a fraction."""
    total = Fraction(0)
    for rank in range(1, k + 1):
        if top[rank - 1] in relevant:
            total += Fraction(sum(place in relevant for place in top[:rank]), rank)
    return total / min(number, k)


@given(seed=st.integers(0, 2**31), q=st.integers(1, 6), k=st.integers(1, 8))
def test_average_precision_is_that_of_a_loop(seed, q, k):
    rng = np.random.default_rng(seed)
    top = np.array([rng.permutation(12)[:8] for _ in range(q)])
    relevant = [rng.permutation(12)[: rng.integers(1, 10)] for _ in range(q)]
    number = np.array([len(r) for r in relevant]) + rng.integers(0, 3, q)  # some have no regions
    top[rng.random(top.shape) < 0.1] = -1
    expected = [
        naive(t.tolist(), set(r.tolist()), int(n), k)
        for t, r, n in zip(top, relevant, number, strict=True)
    ]
    ours = average_precision_at(top, relevant, number, k)
    assert ours == pytest.approx(float(100 * sum(expected) / q))


def test_average_precision_of_nothing_is_nothing():
    nothing = np.empty(0, np.int64)
    assert average_precision_at(np.empty((0, 5), np.int64), [], nothing, 5) == 0
    assert average_precision_at(np.array([[0, 1]]), [nothing], np.array([0]), 2) == 0
    everything = [np.array([4, 2, 0])]
    assert average_precision_at(np.array([[0, 2, 4]]), everything, np.array([3]), 3) == 100
    assert average_precision_at(np.array([[0, 2, 4]]), everything, np.array([3]), 2) == 100


def test_a_query_whose_reference_has_no_regions_finds_no_member_and_no_correct_image():
    protocol = Protocol(
        name="made", source="made", gallery="all", remove_reference=True, correct="target",
        recall_at=(1,), subset_recall_at=(1, 2), precision_at=(1, 2),
    )  # fmt: skip
    rows = [("0", "a", "b"), ("1", "gone", "b"), ("2", "a", "c"), ("3", "a", "d")]
    queries = pd.DataFrame(rows, columns=["query_id", "reference", "target"], dtype=object)
    queries = queries.assign(text="t", split="test")
    queries["members"] = [["a", "b", "c"], ["gone", "b", "c"], ["c", "a", "b"], ["a", "b", "c"]]
    queries["targets"] = [["b", "gone"], ["b"], ["c"], ["d"]]
    images = pd.DataFrame({"path": list("abcd"), "caption": None, "split": "test"}, dtype=object)
    data = Dataset("made", None, queries, images, protocol)
    [work] = tasks(data, "test")
    gallery = torch.tensor([[9.0], [3.0], [2.0], [1.0]])
    vectors = Vectors(torch.ones(4, 1), np.array([True, False, True, True]), gallery)
    metrics = measure(data, work, vectors).metrics
    # found in the order b c d; the last query's target is no member
    assert metrics["recall"] == {"1": 25.0}
    assert metrics["measures"] == {
        "R_subset@1": 25.0, "R_subset@2": 50.0, "mAP@1": 25.0,
        "mAP@2": pytest.approx(100 * (1 / 2 + 0 + 1 / 2 + 0) / 4),
    }  # fmt: skip
