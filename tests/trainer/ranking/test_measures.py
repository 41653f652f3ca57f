"""The measures that a protocol asks for, of one ranking."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from cqr.trainer.datasets.queries import Dataset, Protocol, task, tasks
from cqr.trainer.ranking.encode import Vectors
from cqr.trainer.ranking.measures import combined, measure


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


# against the definitions, one query and one image at a time


def made(rows, images, scores, split="test", gallery=None, breakdown=(), **protocol):
    """A data set of target queries, and the vectors that reach scores, Q x G, in its gallery."""
    protocol = {"recall_at": (1, 2), "remove_reference": False, "correct": "target"} | protocol
    queries = pd.DataFrame(rows).assign(split=split, text="t")
    queries["query_id"] = [str(i) for i in range(len(queries))]
    protocol = Protocol(name="made", source="made", gallery="all", **protocol)
    images = pd.DataFrame(images).assign(split=None)
    data = Dataset("made", None, queries, images, protocol, breakdown=tuple(breakdown))
    scores = torch.tensor(np.array(scores, np.float32))
    known = np.ones(len(scores), bool)
    return data, Vectors(scores, known, torch.eye(scores.shape[1]))


def ranking(line, gone=None):
    """The places of a gallery by their scores, without the one that is gone."""
    return [p for p in sorted(range(len(line)), key=lambda p: -line[p]) if p != gone]


def percent(hits):
    return pytest.approx(100 * sum(hits) / len(hits))


ADJECTIVES = {"a": "old", "b": "old", "c": "new", "d": "raw", "e": "new", "f": "dry", "g": "wet"}
NOUNS = {"a": "cat", "b": "dog", "c": "cat", "d": "dog", "e": "sun", "f": "sun", "g": "dog"}


@pytest.mark.parametrize("seed", range(3))
def test_recall_by_a_column_is_that_of_the_first_image_with_the_targets_value(seed):
    rng = np.random.default_rng(seed)
    names = "abcdefg"
    scores = np.argsort(rng.random((30, 7)))
    rows = [{"reference": r, "target": t} for r, t in rng.choice(list(names), (30, 2))]
    images = [{"path": n, "adjective": ADJECTIVES[n], "noun": NOUNS[n]} for n in names]
    data, vectors = made(rows, images, scores, also=("adjective", "noun"), remove_reference=True)
    [work] = tasks(data, "test")
    measures = measure(data, work, vectors).metrics["measures"]
    expected = {}
    for kind, of in (("adjective", ADJECTIVES), ("noun", NOUNS)):
        for k in (1, 2):
            expected[f"{kind} R@{k}"] = percent(
                [
                    of[row["target"]]
                    in [of[names[p]] for p in ranking(line, names.index(row["reference"]))[:k]]
                    for row, line in zip(rows, scores, strict=True)
                ]
            )
    assert measures == expected
    assert all(10 < share < 90 for share in measures.values())


def test_an_image_of_which_nothing_is_known_has_no_value_in_common_with_any():
    """Neither one of the gallery, nor a target, nor the places after the gallery's end."""
    images = [{"path": path, "colour": f"colour of {path}"} for path in "abcdef"]
    targets = ["c", "e", "f", "gone", "b"]
    rows = [{"reference": "a", "target": target} for target in targets]
    gallery, scores = ["a", "unlisted", "b", "d"], [[4, 3, 2, 1]] * len(rows)
    data, vectors = made(rows, images, scores, also=("colour",), recall_at=(4, 9))
    measures = measure(data, task(data, data.queries, gallery), vectors).metrics["measures"]
    assert measures == {"colour R@4": 20.0, "colour R@9": 20.0}


def test_metrics_and_queries_of_a_task():
    rows = [
        {"reference": "a", "target": "b", "kind": "add", "size": 10},
        {"reference": "b", "target": "c", "kind": "add", "size": None},
        {"reference": "c", "target": "d", "kind": "move", "size": 10},
        {"reference": "gone", "target": "a", "kind": "move", "size": 9},
        {"reference": "d", "target": "gone", "kind": "move", "size": 9},
    ]
    images = [{"path": path} for path in "abcd"]
    scores = [[4, 3, 2, 1], [3, 4, 1, 2], [1, 2, 3, 4], [2, 4, 3, 1], [1, 2, 3, 4]]
    given = {"remove_reference": True, "breakdown": ("kind", "size")}
    data, vectors = made(rows, images, scores, **given)
    [work] = tasks(data, "test")
    metrics, per_query = (found := measure(data, work, vectors)).metrics, found.per_query
    # each query's own image removed, the ranks are 1, 3, 1, 3 and none; of three images or,
    # in the fourth query, four
    assert metrics == {
        "queries": 5,
        "gallery": 4,
        "recall": {"1": percent([1, 0, 1, 0, 0]), "2": percent([1, 0, 1, 0, 0])},
        "chance": {"1": percent([1 / 3, 1 / 3, 1 / 3, 1 / 4, 0]),
                   "2": percent([2 / 3, 2 / 3, 2 / 3, 2 / 4, 0])},
        "measures": {},
        "without_correct_image": 1,
        "breakdown": {
            "kind": {
                "add": {"queries": 2, "recall": {"1": 50.0, "2": 50.0},
                        "chance": {"1": percent([1 / 3]), "2": percent([2 / 3])}},
                "move": {"queries": 3, "recall": {"1": percent([1, 0, 0]), "2": percent([1, 0, 0])},
                         "chance": {"1": percent([1 / 3, 1 / 4, 0]),
                                    "2": percent([2 / 3, 2 / 4, 0])}},
            },
            "size": {
                "10.0": {"queries": 2, "recall": {"1": 100.0, "2": 100.0},
                         "chance": {"1": percent([1 / 3]), "2": percent([2 / 3])}},
                "9.0": {"queries": 2, "recall": {"1": 0.0, "2": 0.0},
                        "chance": {"1": percent([1 / 4, 0]), "2": percent([2 / 4, 0])}},
            },
        },
    }  # fmt: skip
    assert list(metrics["breakdown"]["size"]) == ["10.0", "9.0"]
    assert per_query["rank"].tolist() == [1, 3, 1, 3, 0]
    assert per_query["target"].tolist() == ["b", "c", "d", "a", "gone"]
    nothing = [None] * 46
    assert [found.tolist() for found in per_query["found"]] == [
        [*"bcd", None, *nothing], [*"adc", None, *nothing], [*"dba", None, *nothing],
        [*"bcad", *nothing], [*"cba", None, *nothing],
    ]  # fmt: skip
    assert per_query["scores"][3][:4].tolist() == [4, 3, 2, 1]
    assert np.isnan(per_query["scores"][3][4:]).all()


def categories():
    """FashionIQ's dress and shirt, of which the second is larger and easier."""
    rows = [{"reference": "d1", "target": "d2", "category": "dress"}] * 2
    rows += [{"reference": "s1", "target": "s3", "category": "shirt"}] * 4
    rows[5] = {"reference": "s1", "target": "gone", "category": "shirt"}
    images = [{"path": p, "category": "dress"} for p in ("d1", "d2", "d3", "d4")]
    images += [{"path": p, "category": "shirt"} for p in ("s1", "s2", "s3", "s4", "s5")]
    data, dress = made(
        rows, images, [[4, 3, 2, 1], [1, 3, 2, 4]], part="category",
        recall_at=(1, 3), average=("R@1", "R@3"),
    )  # fmt: skip
    shirt = torch.tensor([[1, 2, 9, 4, 5.0], [1, 2, 9, 4, 5], [5, 4, 3, 1, 2], [5, 4, 3, 1, 2]])
    return data, [dress, Vectors(shirt, np.ones(4, bool), torch.eye(5))]


def test_metrics_of_several_parts_are_their_means_and_their_sums():
    data, vectors = categories()
    works = tasks(data, "test")
    assert [work.queries["category"].unique().tolist() for work in works] == [["dress"], ["shirt"]]
    parts = [measure(data, work, one) for work, one in zip(works, vectors, strict=True)]
    dress = {"queries": 2, "gallery": 4, "recall": {"1": 0.0, "3": 100.0},
             "chance": {"1": percent([1 / 4]), "3": percent([3 / 4])}}  # fmt: skip
    shirt = {"queries": 4, "gallery": 5, "recall": {"1": 50.0, "3": 75.0},
             "chance": {"1": percent([1 / 5, 1 / 5, 1 / 5, 0]),
                        "3": percent([3 / 5, 3 / 5, 3 / 5, 0])}}  # fmt: skip
    assert combined(data, parts) == {
        "queries": 6,
        "gallery": 9,
        "recall": {"1": 25.0, "3": 87.5},  # of the parts, not of the queries: 33.3, 83.3
        "chance": {"1": percent([1 / 4, 3 / 20]), "3": percent([3 / 4, 9 / 20])},
        "measures": {},
        "without_correct_image": 1,
        "breakdown": {"category": {"dress": dress, "shirt": shirt}},
        "average": {"of": ["R@1", "R@3"], "value": 56.25},
    }
    assert combined(data, parts[:1]) == parts[0].metrics | {
        "average": {"of": ["R@1", "R@3"], "value": 50.0}
    }


def test_an_average_may_be_of_any_measure_and_other_measures_are_means_over_parts_too():
    rows = [{"reference": "a", "target": "b", "part": "1"}] * 2
    rows += [{"reference": "c", "target": "d", "part": "2"}]
    images = [{"path": p, "part": "12"[p in "cd"], "colour": "red"} for p in "abcd"]
    given = {"part": "part", "also": ("colour",), "recall_at": (1,), "subset_recall_at": (1,)}
    data, one = made(rows, images, [[2, 1], [1, 2]], average=("R@1", "R_subset@1"), **given)
    data.queries["members"] = [["a", "b"], ["a", "b"], ["c", "d"]]
    two = Vectors(torch.tensor([[2.0, 1.0]]), np.ones(1, bool), torch.eye(2))
    works = tasks(data, "test")
    parts = [measure(data, work, v) for work, v in zip(works, (one, two), strict=True)]
    # the set's reference is no member, so its one other image is the first
    whole = combined(data, parts)
    assert whole["recall"] == {"1": 25.0}
    assert whole["measures"] == {"colour R@1": 100.0, "R_subset@1": 100.0}
    assert whole["average"] == {"of": ["R@1", "R_subset@1"], "value": 62.5}
    plain = dataclasses.replace(data, protocol=dataclasses.replace(data.protocol, average=()))
    assert combined(plain, parts)["average"] is None
