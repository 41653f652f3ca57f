"""The order in which listed queries are trained on."""

import math
from collections import Counter
from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.pairs import Listed, cut
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import Wanted, collect
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.steps.batches import Pairs


def listed(references, together):
    names = [str(i) for i in range(len(references))]
    source = Listed(pd.DataFrame({"reference": references, "text": names, "target": names}))
    source.together = together
    return source


@given(
    references=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40),
    together=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_each_query_comes_once_and_those_of_a_reference_together(references, together, seed):
    source = listed(references, together)
    drawn = source.draw(np.random.default_rng(seed))
    assert sorted(drawn.text, key=int) == [str(i) for i in range(len(references))]
    assert [references[int(i)] for i in drawn.target] == list(drawn.reference)
    again = source.draw(np.random.default_rng(seed))
    assert list(again.text) == list(drawn.text)
    # Each reference's queries stand in the fewest groups: all full but at most one.
    for reference, count in Counter(references).items():
        runs = [len(list(run)) for name, run in groupby(drawn.reference) if name == reference]
        full, rest = divmod(count, together)
        assert len(runs) <= full + bool(rest)
        assert sum(length % together for length in runs) % together == rest


def test_a_list_is_shuffled_whole_unless_queries_are_put_together():
    names = [str(i) for i in range(30)]
    source = Listed(pd.DataFrame({"reference": list("aab") * 10, "text": names, "target": names}))
    assert source.together == 1
    drawn = source.draw(np.random.default_rng(7))
    assert list(drawn.text) == [str(i) for i in np.random.default_rng(7).permutation(30)]
    assert len(source) == len(drawn) == 30
    assert list(source.texts()) == names


@pytest.mark.parametrize(
    ("fraction", "held"), [(0, 0), (0.01, 1), (0.25, 2), (0.5, 5), (0.95, 9), (0.99, 9), (1, 9)]
)
def test_a_share_of_the_values_is_held_out_with_all_their_rows(fraction, held):
    frame = pd.DataFrame({"group": list("jihgfedcbajihgfedcbaaaa")})
    masks = [cut(frame, "group", fraction, seed) for seed in range(60)]
    for mask in masks:
        out = set(frame["group"][mask])
        assert len(out) == held
        assert out.isdisjoint(frame["group"][~mask])
    again = cut(frame[::-1], "group", fraction, 0)  # the order of the rows does not matter
    assert again.tolist() == masks[0][::-1].tolist()
    if held:
        assert len({tuple(mask) for mask in masks}) > 5
        assert set().union(*(frame["group"][mask] for mask in masks)) == set("abcdefghij")


@pytest.mark.parametrize("together", [2, 3])
def test_an_epoch_is_drawn_the_same_in_every_version(together):
    """A run that goes on under another version of cqr meets the same pairs: one by one."""
    references = list("cabbacabcaabbbacbacb")
    rng = np.random.default_rng(11)
    groups = {}  # of each reference, as they come in the shuffled list
    for row in rng.permutation(20):
        of_one = [key for key in groups if key[0] == references[row]]
        if not of_one or len(groups[of_one[-1]]) == together:
            of_one.append((references[row], len(of_one)))
        groups.setdefault(of_one[-1], []).append(int(row))
    places = rng.permutation(len(groups)).tolist()
    expected = [
        row for _, rows in sorted(zip(places, groups.values(), strict=True)) for row in rows
    ]
    assert listed(references, together).order(np.random.default_rng(11)).tolist() == expected


def test_of_a_share_of_the_texts_the_words_are_read_in_another_order():
    number, text = 2_000, "a b c d e f g h"
    words = Vocabulary.of([text])
    same = np.zeros(number, np.int64)
    no_regions = SimpleNamespace(gather=lambda rows: None)
    pairs = Pairs(same, same, np.array([text] * number), same, no_regions, words)

    def read(share, seed):
        rows = pairs.reordered(share, np.random.default_rng(seed)).batch(np.arange(number)).words
        return rows.tokens.numpy()

    as_it_is = words.encode([text]).tokens.numpy()
    assert (read(0, 0) == as_it_is).all()
    assert (np.sort(read(0.5, 0)) == np.sort(as_it_is)).all()
    assert (read(0.5, 0) == read(0.5, 0)).all()
    assert (read(0.5, 0) != read(0.5, 1)).any()
    changed = (read(0.5, 0) != as_it_is).any(axis=1)
    assert 0.3 < changed.mean() < 0.5  # some cuts are equal
    assert len(np.unique(read(0.5, 0), axis=0)) == 1 + math.comb(9, 3)


def test_groups_and_what_is_in_them_are_shuffled():
    source = listed(list("aaaabbbbcccc"), 2)
    orders = {tuple(source.draw(np.random.default_rng(seed)).text) for seed in range(20)}
    assert len(orders) == 20
    partners = {frozenset(order[:2]) for order in orders}
    assert len(partners) > 5


def test_a_training_puts_them_together_where_its_queries_are_a_list(drawn_scenes):
    material = collect(drawn_scenes(references=8, modifications=4))
    source, _ = divide(material.dataset, Settings(together=4, validation=0.2))
    references = source.draw(np.random.default_rng(0)).reference
    assert all(len(set(references[i : i + 4])) == 1 for i in range(0, len(references), 4))
    tirg = collect(material.reader.file.path, Wanted(chosen=("rules=tirg",)))
    with pytest.raises(UserError, match="--together 4: css draws its training pairs"):
        divide(tirg.dataset, Settings(together=4))
