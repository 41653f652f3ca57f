"""Pickles of strangers; test_weights and test_imports show it through the files that have them."""

import io
import os
import pickle
from collections import OrderedDict, deque

import numpy as np
import pytest

from cqr.pipeline import unpickle


class Made:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def loaded(content, protocol=2):
    return unpickle.load(io.BytesIO(pickle.dumps(content, protocol)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_is_read(protocol):
    content = OrderedDict(a=np.arange(6.0).reshape(2, 3), b=np.float32(2), c=b"\xe9", d=["text", 3])
    found = loaded(content, protocol)
    assert type(found) is dict
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [3, 4, 5]])
    assert (found["b"], found["c"], found["d"]) == (2, b"\xe9", ["text", 3])


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"])
def test_numpy_of_both_names_is_read(package):
    written = pickle.dumps(np.array([1, 2]), 0).replace(b"numpy._core", package)
    written = written.replace(b"numpy.core", package)
    assert package + b".multiarray" in written
    assert unpickle.load(io.BytesIO(written)).tolist() == [1, 2]


def test_strings_of_python_2_are_read():
    assert unpickle.load(io.BytesIO(b"U\x02\xe9a.")) == "éa"


@pytest.mark.parametrize(
    "content", [Made(os.mkdir, "made"), deque([1]), Made(eval, "1"), np.load, np.array]
)
def test_all_else_is_refused(content, tmp_path):
    with pytest.raises(pickle.UnpicklingError, match="it asks for"):
        loaded([content])
    assert not (tmp_path / "made").exists()


def test_another_encoding_is_refused():
    written = pickle.dumps(b"\xe9", 2).replace(b"latin1", b"utf_16")
    with pytest.raises(pickle.UnpicklingError, match="encoding utf_16"):
        unpickle.load(io.BytesIO(written))
