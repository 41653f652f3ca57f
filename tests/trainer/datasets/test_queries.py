from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cqr.trainer.datasets.pairs import cut
from cqr.trainer.datasets.queries import Dataset, task
from cqr.trainer.datasets.readers import css, table


def dataset(protocol):
    images = pd.DataFrame(
        {"path": list("abcdef"), "caption": ["x", "y", "x", "z", "y", "x"], "split": "test"}
    )
    rows = [("a", "t", "c"), ("a", "t", "b"), ("b", "u", "e"), ("c", "v", "nowhere")]
    queries = pd.DataFrame(rows, columns=["reference", "text", "target"])
    queries.insert(0, "query_id", [str(i) for i in range(len(queries))])
    return Dataset("d", None, queries.assign(split="test"), images, protocol)


def correct(work):
    return [c.tolist() for c in work.correct]


def test_by_caption_every_image_of_the_target_s_caption_but_the_reference_is_correct():
    data = dataset(css.PROTOCOL)
    work = task(data, data.queries, data.gallery("test"))
    assert work.reference.tolist() == [0, 0, 1, 2]
    assert correct(work) == [[2, 5], [1, 4], [4], []]


def test_rows_of_the_same_reference_and_text_are_one_query_with_all_their_targets():
    data = dataset(table.PROTOCOL)
    work = task(data, data.queries, data.gallery("test"))
    assert work.queries["query_id"].tolist() == ["0", "2", "3"]
    assert correct(work) == [[1, 2], [4], []]
    assert work.size.tolist() == [5, 5, 5]


def test_a_query_with_a_gallery_of_its_own_is_held_against_nothing_else():
    data = dataset(table.PROTOCOL)
    lists = [["b", "d", "a"], ["c"], ["f", "nowhere", "f"], ["e", "c", "a"]]
    queries = data.queries.assign(gallery=lists)
    work = task(data, queries, data.gallery("test"))
    assert work.own.tolist() == [[1, 3, -1], [5, -1, -1], [4, -1, 0]]  # references are removed
    assert work.size.tolist() == [2, 1, 2]
    assert correct(work) == [[1], [], []]  # c and e are right, but not among these
    kept = replace(data, protocol=replace(table.PROTOCOL, remove_reference=False))
    assert task(kept, queries, data.gallery("test")).own.tolist()[0] == [1, 3, 0]
    some = queries.assign(gallery=[None, *lists[1:]])
    assert task(data, some, data.gallery("test")).own is None


def test_a_reference_that_is_kept_may_be_correct():
    data = dataset(replace(css.PROTOCOL, remove_reference=False))
    work = task(data, data.queries, data.gallery("test"))
    assert work.reference.tolist() == [-1] * 4
    assert correct(work) == [[0, 2, 5], [1, 4], [1, 4], []]


def test_a_gallery_lacks_what_has_no_regions():
    data = dataset(css.PROTOCOL)
    work = task(data, data.queries, ["f", "b"])
    assert work.reference.tolist() == [-1, -1, 1, -1]
    assert correct(work) == [[0], [1], [], []]


def test_the_protocol_is_said_in_words():
    said = css.PROTOCOL.sentence()
    assert "all images of the test split" in said
    assert "the reference is removed from it" in said
    assert "Recall@k for k = 1, 5, 10, 50" in said


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.99])
def test_no_reference_is_both_trained_on_and_held_out(fraction):
    names = [f"r{i // 3}" for i in range(60)]
    queries = pd.DataFrame({"reference": names, "split": "train"})
    held = cut(queries, "reference", fraction, seed=1)
    assert not set(queries["reference"][held]) & set(queries["reference"][~held])
    expected = 0 if fraction == 0 else min(max(round(20 * fraction), 1), 19)
    assert queries["reference"][held].nunique() == expected
    assert np.array_equal(held, cut(queries, "reference", fraction, seed=1))


def test_the_caption_of_a_target_that_has_no_regions_still_says_what_is_correct():
    data = dataset(css.PROTOCOL)
    there = data.images["path"] != "c"
    data = replace(data, images=data.images.assign(there=there))
    work = task(data, data.queries, data.gallery("test"))
    assert work.gallery == list("abdef")
    assert correct(work)[0] == [4]  # a's query for c finds f, of the same caption
