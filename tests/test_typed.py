"""JSON of files: what fits is built, and whatever else there is ends in a ValueError."""

import contextlib
import errno
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqr.errors import refused, scarcity
from cqr.typed import built, parsed


@dataclass(frozen=True)
class Kind:
    number: int
    share: float
    words: tuple[str, ...]
    sums: dict[str, float]
    way: Literal["a", "b"] = "a"
    maybe: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


GOOD = {"number": 1, "share": 2, "words": ["x"], "sums": {"a": 0.5}}


def test_what_fits_is_built():
    found = built(Kind, {**GOOD, "way": "b", "maybe": 3, "more": {"x": []}})
    assert found == Kind(1, 2, ("x",), {"a": 0.5}, "b", 3, {"x": []})
    assert built(Kind, GOOD) == Kind(1, 2, ("x",), {"a": 0.5})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"number": True}, "number is True"),
        ({"number": 1.0}, "number is 1.0"),
        ({"share": float("nan")}, "share is nan"),
        ({"share": float("inf")}, "share is inf"),
        ({"words": "x"}, "words is 'x'"),
        ({"words": [1]}, r"words is \[1\]"),
        ({"sums": {"a": None}}, "sums is "),
        ({"way": "c"}, "way is 'c'"),
        ({"maybe": "3"}, "maybe is '3'"),
        ({"other": 1}, "'other' is not known"),
    ],
)
def test_what_does_not_fit_is_said(change, why):
    with pytest.raises(ValueError, match=why):
        built(Kind, {**GOOD, **change})


@pytest.mark.parametrize("content", [None, [], "x", 3, {"number": 1}])
def test_what_is_no_object_or_lacks_a_field_is_said(content):
    with pytest.raises(ValueError, match=r"where an object should be|share is missing"):
        built(Kind, content)


@given(st.binary(max_size=30))
def test_bytes_are_json_or_a_value_error(content):
    with contextlib.suppress(ValueError):
        parsed(content)


def test_deep_json_is_said():
    with pytest.raises(ValueError, match="it nests too deep"):
        parsed("[" * 200_000)
    assert parsed("[" * 50 + "]" * 50)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open"),
        (OSError("unable to open file (errno = 24, error message = 'x')"), "too many files"),
        (RuntimeError("I/O error: Too many open files (os error 24)"), "too many files"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (
            ImportError("libtorch_cuda.so: failed to map segment from shared object"),
            "enough memory",
        ),
        (
            ImportError("libc10.so: cannot open shared object file: Too many open files"),
            "many files",
        ),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
        (RuntimeError("mmap: Cannot allocate memory"), "not enough memory"),
        (OSError(errno.ENOENT, "x"), None),
        (ValueError("a file of 24 bytes"), None),
    ],
)
def test_what_the_machine_is_out_of_is_told_from_damage(error, why):
    found = scarcity(error)
    assert (found is None) if why is None else (why in found)


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENAMETOOLONG, "File name too long; give a shorter name"),
        (errno.EACCES, "Permission denied; give yourself access, or name another"),
        (errno.EROFS, "Read-only file system; name another place"),
        (errno.ENOENT, None),
    ],
)
def test_what_may_not_be_used_is_named(number, what):
    found = refused(OSError(number, os.strerror(number), "a/b"))
    assert found == (what and f"cannot use a/b: {what}")
    assert refused(OSError(number, os.strerror(number))) is None
