"""The measure itself, on cases worked out by hand."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

PATH = Path(__file__).parents[3] / "benchmarks" / "quality" / "bundled_detector.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("bundled_detector_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # data classes look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("scores", "right", "truths", "expected"),
    [
        ([0.9, 0.8], [1, 1], 2, 1.0),
        ([0.9], [1], 2, 0.5),  # half is found, with precision 1
        ([0.9, 0.8], [0, 1], 1, 0.5),  # the only hit comes second
        ([0.8, 0.9], [1, 0], 1, 0.5),  # order is by score
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, 0.5 * 1 + 0.5 * 2 / 3),
        ([0.9, 0.8, 0.7, 0.6], [0, 1, 1, 1], 4, 0.25 * 3 * 0.75),  # the best precision from there
        ([0.9, 0.8], [0, 0], 3, 0.0),
        ([], [], 3, 0.0),
    ],
)
def test_average_precision(benchmark, scores, right, truths, expected):
    measured = benchmark.average_precision(np.array(scores, float), np.array(right, bool), truths)
    assert measured == pytest.approx(expected)


def test_overlap(benchmark):
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1]], float)
    b = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]], float)
    expected = [[1 / 3, 1, 0], [0, 1 / 4, 0]]
    np.testing.assert_allclose(benchmark.overlap(a, b), expected)


def test_a_true_box_is_found_once_and_by_the_most_certain(benchmark):
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 4], [20, 0, 30, 6]], float)
    assert benchmark.match(boxes, truth, 0.5).tolist() == [0, -1, -1, 1]
    assert benchmark.match(boxes, truth[:0], 0.5).tolist() == [-1] * 4
    assert benchmark.match(boxes[:0], truth, 0.5).tolist() == []
