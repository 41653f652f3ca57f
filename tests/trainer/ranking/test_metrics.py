"""Ranks and recall against naive loops that share no code with them."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cqr.trainer.ranking import metrics, scores

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


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


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**31),
    q=st.integers(1, 13),
    g=st.integers(1, 70),
    depth=st.integers(1, 25),
    block=st.sampled_from([1, 11, 40, 10**6]),
    group=st.sampled_from([1, 2, 3, 64]),
    values=st.sampled_from([1, 2, 5, 100]),
    device=st.sampled_from(DEVICES),
)
def test_ranks_and_tops_are_those_of_a_full_sort(seed, q, g, depth, block, group, values, device):
    rng = np.random.default_rng(seed)
    # small integers: exact dot products and many ties; of one value, nothing but ties
    queries, gallery = (rng.integers(0, values, (n, 3)) - values // 2 for n in (q, g))
    reference = rng.integers(-1, g, q)
    correct = [
        np.setdiff1d(rng.choice(g, rng.integers(0, min(g, 4) + 1), replace=False), [r])
        for r in reference
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK", block)
        patch.setattr(metrics, "GROUP", group)
        ours = metrics.rank(
            torch.tensor(queries, device=device),
            torch.tensor(gallery, device=device),
            reference,
            correct,
            depth,
        )
    ranks, tops = naive(queries, gallery, reference, correct, depth)
    assert ours.rank.tolist() == ranks
    assert ours.top.tolist() == tops
    for row, (places, found) in enumerate(zip(ours.top, ours.scores, strict=True)):
        expected = [np.nan if p < 0 else queries[row] @ gallery[p] for p in places]
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    q=st.integers(1, 9),
    g=st.integers(2, 80),
    dim=st.sampled_from([1, 7, 64, 100, 513]),
    rows=st.integers(1, 9),
    device=st.sampled_from(DEVICES),
)
def test_the_same_vector_has_the_same_score_wherever_it_stands(seed, q, g, dim, rows, device):
    rng = np.random.default_rng(seed)
    queries = torch.tensor(rng.standard_normal((q, dim)), dtype=torch.float32, device=device)
    kinds = rng.standard_normal((3, dim))
    kind = rng.integers(0, 3, g)
    gallery = torch.tensor(kinds[kind], dtype=torch.float32, device=device)
    none = np.full(q, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK", rows * g)
        ours = metrics.rank(queries, gallery, none, [np.arange(g)] * q, g)
    among, order = metrics.rank_among(queries, gallery, np.tile(np.arange(g), (q, 1)), [[]] * q)
    for top in (*ours.top, *order):
        # three runs, one of each kind, each in gallery order
        runs = [list(run) for _, run in itertools.groupby(top, key=lambda place: kind[place])]
        assert len(runs) == len(set(kind))
        assert all(run == sorted(run) for run in runs)
    for found, top in zip(ours.scores, ours.top, strict=True):
        assert len(set(zip(kind[top], found, strict=True))) == len(set(kind))
    assert ours.rank.tolist() == [1] * q
    assert among.tolist() == [0] * q


def test_scores_are_float32_whatever_the_vectors_are_and_need_no_gradient():
    # in float16 2048 + 1 is 2048
    vectors = torch.tensor([[2048, 1], [2048, 0]], dtype=torch.float16, requires_grad=True)
    one = torch.ones(1, 2, dtype=torch.float16, requires_grad=True)
    ours = metrics.rank(one, vectors, np.array([-1]), [np.array([1])], 2)
    assert (ours.scores.tolist(), ours.rank.tolist()) == ([[2049, 2048]], [2])


def test_an_empty_gallery_has_nothing_to_find():
    ours = metrics.rank(
        torch.ones(2, 3), torch.zeros(0, 3), np.full(2, -1), [np.array([], int)] * 2
    )
    assert ours.rank.tolist() == [0, 0]
    assert (ours.top == -1).all()
    assert np.isnan(ours.scores).all()


def test_no_query_gives_no_rank():
    ours = metrics.rank(torch.zeros(0, 3), torch.ones(4, 3), np.empty(0, np.int64), [], 2)
    assert (ours.rank.shape, ours.top.shape) == ((0,), (0, 2))


@pytest.mark.parametrize(("k", "expected"), [(1, 20.0), (2, 40.0), (5, 60.0), (100, 80.0)])
def test_recall_counts_found_queries_among_all(k, expected):
    assert metrics.recall_at(np.array([1, 2, 0, 5, 6]), k) == pytest.approx(expected)


def test_of_no_query_every_share_is_zero():
    none = np.empty(0, np.int64)
    assert metrics.recall_at(none, 1) == metrics.chance_at(none, none, 1) == 0
    assert metrics.map_at(np.empty((0, 3), np.int64), [], 1) == 0


def test_the_best_fifty_are_kept_unless_otherwise_said():
    ours = metrics.rank(torch.ones(1, 1), torch.ones(60, 1), np.array([-1]), [np.array([55])])
    assert ours.top.tolist() == [list(range(50))]
    assert (ours.scores.shape, ours.rank.tolist()) == ((1, 50), [56])


@pytest.mark.parametrize("correct", [0, 1, 3, 6])
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_chance_is_the_share_of_all_orders_that_hit(correct, k):
    size = 6
    subsets = list(itertools.combinations(range(size), min(k, size)))
    hits = sum(any(place < correct for place in subset) for subset in subsets)
    chance = metrics.chance_at(np.array([correct]), np.array([size]), k)
    assert chance == pytest.approx(100 * hits / len(subsets))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    q=st.integers(0, 9),
    m=st.integers(1, 7),
    values=st.sampled_from([1, 3, 100]),
    block=st.sampled_from([1, 30, 10**6]),
    device=st.sampled_from(DEVICES),
)
def test_members_rank_as_a_sort_of_them_would(seed, q, m, values, block, device):
    rng = np.random.default_rng(seed)
    g = m + 4
    queries, gallery = (rng.integers(0, values, (n, 3)) - values // 2 for n in (q, g))
    members = np.stack([rng.permutation(g)[:m] for _ in range(q)]) if q else np.empty((0, m), int)
    members[rng.random(members.shape) < 0.2] = -1
    correct = [rng.choice(g, rng.integers(0, 4), replace=False) for _ in range(q)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "BLOCK", block)
        ranks, ranked = metrics.rank_among(
            torch.tensor(queries, device=device),
            torch.tensor(gallery, device=device),
            members,
            correct,
        )
    assert (ranks.dtype, ranks.shape, ranked.shape) == (np.int64, (q,), (q, m))
    for row in range(q):
        dots = {int(p): sum(a * b for a, b in zip(queries[row], gallery[p], strict=True))
                for p in members[row] if p >= 0}  # fmt: skip
        order = sorted(dots, key=lambda place: (-dots[place], place))
        assert ranked[row].tolist() == order + [-1] * (m - len(order))
        hits = [n for n, place in enumerate(order, 1) if place in correct[row]]
        assert ranks[row] == min(hits, default=0)
    found = metrics.rank_within(*map(torch.tensor, (queries, gallery)), members, correct)
    assert np.array_equal(found.rank, ranks)
    assert np.array_equal(found.top, ranked)
    for row, (places, reached) in enumerate(zip(ranked, found.scores, strict=True)):
        for place, score in zip(places, reached, strict=True):
            assert score == queries[row] @ gallery[place] if place >= 0 else np.isnan(score)


class Largest(TorchDispatchMode):
    """The most numbers that a tensor of three dimensions had."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.ndim == 3:
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize(
    ("m", "dim", "block", "most"),
    [(3, 5, 60, 60), (3, 5, 74, 60), (3, 5, 1, 15), (1, 1, 4, 4), (3, 5, 10**6, 40 * 15)],
)
def test_members_are_ranked_in_bounded_memory(monkeypatch, m, dim, block, most):
    """Of a block of queries no more numbers are held than BLOCK, or than one query needs."""
    monkeypatch.setattr(scores, "BLOCK", block)
    queries, gallery = torch.ones(40, dim), torch.ones(7, dim)
    with Largest() as largest:
        metrics.rank_among(queries, gallery, np.tile(np.arange(m), (40, 1)), [[0]] * 40)
    assert largest.numbers == most


def test_a_member_named_twice_is_refused():
    with pytest.raises(ValueError, match="query 1 has the place 2 twice"):
        metrics.rank_among(
            torch.ones(2, 3), torch.ones(4, 3), np.array([[-1, -1, 0], [2, 1, 2]]), [[0], [0]]
        )


def naive_ap(top, correct, k):
    hits, total = 0, 0.0
    for n, place in enumerate(top[:k], 1):
        if place >= 0 and place in correct:
            hits += 1
            total += hits / n
    return total / min(len(correct), k) if len(correct) else 0.0


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**31), q=st.integers(0, 6), t=st.integers(1, 12), k=st.integers(1, 15))
def test_average_precision_is_the_mean_precision_at_the_hits(seed, q, t, k):
    rng = np.random.default_rng(seed)
    top = np.stack([rng.permutation(15)[:t] for _ in range(q)]) if q else np.empty((0, t), int)
    top[:, t // 2 :][rng.random((q, t - t // 2)) < 0.2] = -1
    correct = [rng.choice(np.arange(-3, 15), rng.integers(0, 9), replace=False) for _ in range(q)]
    expected = [
        naive_ap(row.tolist(), set(c.tolist()), k) for row, c in zip(top, correct, strict=True)
    ]
    np.testing.assert_allclose(metrics.average_precision(top, correct, k), expected, atol=1e-12)
    mean = 100 * sum(expected) / q if q else 0
    assert metrics.map_at(top, correct, k) == pytest.approx(mean)


def test_average_precision_of_a_worked_example():
    # hits at 1 and 3 of four correct images: (1/1 + 2/3) / min(4, 3)
    found = metrics.average_precision(np.array([[7, 0, 5, 1]]), [np.array([5, 7, 1, -1])], 3)
    assert found.tolist() == pytest.approx([(1 + 2 / 3) / 3])


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_place_found_twice_is_refused(place):
    with pytest.raises(ValueError, match=f"query 0 has the place {place} twice"):
        metrics.average_precision(np.array([[place, 2, place, -1, -1]]), [np.array([1])], 2)
