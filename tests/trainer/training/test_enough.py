"""What is said of too little data, and how far a share of n queries is known."""

import statistics

import pandas as pd
import pytest

from cqr.trainer.training.enough import CHOOSE, LEARN, MEASURE, too_little
from cqr.trainer.training.settings import Settings


class Data:
    """As much of a data set, and of a task, as is looked at."""

    class protocol:
        scored = "test"

    def __init__(self, queries):
        self.queries = pd.DataFrame({"query_id": range(queries)})

    def split(self, name):
        assert name == "test"
        return self.queries


def said(learn, choose, measure, **settings):
    choice = [Data(choose)] if choose else []
    return too_little(Data(measure), Settings(**settings), range(learn), choice)


def test_of_enough_nothing_is_said():
    assert said(LEARN, CHOOSE, MEASURE) == []


def test_each_lack_is_said_with_what_it_is_enough_for():
    learn, choose, measure = said(16, 1, 4)
    assert learn.startswith("16 queries to learn from")
    assert choose.startswith("1 query to choose the epoch by, which know R@k within 98 points")
    assert measure.startswith("4 queries to measure with, which know R@k within 49 points")


def test_what_was_not_asked_for_is_not_missed():
    assert said(16, 0, MEASURE, start="joint") == []
    assert said(LEARN, 10, MEASURE, select="test") == []


@pytest.mark.parametrize(("queries", "points"), [(25, 20), (100, 10), (399, 5)])
def test_the_points_are_those_of_the_normal_interval_of_a_half(queries, points):
    exact = 100 * statistics.NormalDist().inv_cdf(0.975) * (0.25 / queries) ** 0.5
    assert exact <= points < exact + 1
    assert f"within {points} points" in said(LEARN, CHOOSE, queries)[0]
