"""Pickles of strangers; test_weights and test_imports show it through the files that have them."""

import io
import os
import pickle
from collections import OrderedDict, deque

import numpy as np
import pytest

from cqr import unpickle


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
    np.testing.assert_array_equal(found["a"].numbers(), [[0, 1, 2], [3, 4, 5]])
    assert (found["b"], found["c"], found["d"]) == (2, b"\xe9", ["text", 3])


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"])
def test_numpy_of_both_names_is_read(package):
    written = pickle.dumps(np.array([1, 2]), 0).replace(b"numpy._core", package)
    written = written.replace(b"numpy.core", package)
    assert package + b".multiarray" in written
    assert unpickle.load(io.BytesIO(written)).values == [1, 2]


def test_strings_of_python_2_are_read():
    assert unpickle.load(io.BytesIO(b"U\x02\xe9a.")) == "éa"


@pytest.mark.parametrize(
    "content",
    [Made(os.mkdir, "made"), deque([1]), Made(eval, "1"), np.load, np.array, {1}, {(1,): 2}],
)
def test_all_else_is_refused(content, tmp_path):
    with pytest.raises(unpickle.NotPlain):
        loaded([content])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.float16([1.5]),
        np.zeros((0, 4)),
        np.array(3),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_of_every_order_and_shape(array, protocol):
    found = loaded([array], protocol)[0].numbers()
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")


class Forged:
    """An array of one object pointer, whose bytes are the file's own; numpy itself believes it."""

    def __reduce__(self):
        state = (4, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
        dtype = Made(np.dtype, "V8", False, True)
        dtype.call = (*dtype.call, state)
        whole = np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b")
        return (*whole, (1, (), dtype, False, b"\x41" * 8))


def test_a_forged_dtype_is_no_numbers():
    found = loaded({"info": Forged()})["info"]
    with pytest.raises(ValueError, match="none of numbers"):
        found.numbers()
    with pytest.raises(ValueError, match="none of numbers"):
        found.values  # noqa: B018


def test_what_stands_in_itself_ends():
    """Each list holds the one before it ten times: 10^40 numbers in 41 lists."""
    lists = [1]
    for _ in range(40):
        lists = [lists] * 10
    with pytest.raises(ValueError, match="something else"):
        unpickle.as_numbers(loaded(lists))


@pytest.mark.parametrize(
    "written",
    [
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.",  # a bytearray of a terabyte
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",
        b"\x80\x04}(" + b"(" + b")" + b"\x85" * 100_000 + b"tK\x01u.",  # a key that C would hash
        b"\x80\x02c_codecs\nencode\n}b.",  # sets the state of a function
    ],
)
def test_what_would_take_memory_or_the_stack(written):
    try:
        found = unpickle.load(io.BytesIO(written))
    except Exception:
        return
    assert found == b"x"


def test_another_encoding_is_refused():
    written = pickle.dumps(b"\xe9", 2).replace(b"latin1", b"utf_16")
    with pytest.raises(pickle.UnpicklingError, match="encoding"):
        unpickle.load(io.BytesIO(written))
