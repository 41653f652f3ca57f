"""The measures that a protocol asks for, of one ranking."""

import numpy as np
import pandas as pd
import pytest
import torch

from cqr.trainer.datasets.queries import Dataset, Protocol, tasks
from cqr.trainer.ranking.encode import Vectors
from cqr.trainer.ranking.measures import measure


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
