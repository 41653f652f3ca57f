"""Pickles of strangers: arrays, numbers, text and plain containers are read, and nothing runs.

A pickle names functions and has them called, so a reader that lets it runs whatever the file
says; and numpy believes a pickle that sets the state of a dtype, after which bytes of the file
are taken for addresses.  Here a pickle may name only what an array needs, and gets the stand-ins
below for it: none of numpy's code is reached but the reading of plain numbers.  The unpickler
is the one written in Python, since the one in C takes as much memory as a damaged file tells it
to.  What the opcodes of a pickle can do beyond that (sets, keys that are containers, whose hash
C computes to any depth) is refused.
"""

import io
import math
import pickle
import re
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

PLAIN = (str, bytes, int, float, bool, type(None))
"""Types of a key of a dictionary."""


class NotPlain(pickle.UnpicklingError):
    """A pickle asks for more than plain data."""


class Array:
    """Stands in for numpy.ndarray, and for the functions that make one.

    `__setstate__` here and below also keeps a pickle from changing the class itself.

    Attributes:
        shape: as the pickle says it.
        content: a list of the objects in it, in their order, or the bytes of its numbers.
    """

    def __init__(self, *_: Any) -> None:
        self.shape: Any = ()
        self.content: Any = []
        self._dtype: Any = None
        self._fortran = False

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self._dtype, self._fortran, self.content = state

    def numbers(self) -> NDArray[Any]:
        """Its numbers, of its shape, in the machine's byte order; a copy.

        Raises:
            ValueError: it is none of numbers, or not as many as its shape says.
        """
        if isinstance(self.content, list):
            flat = as_numbers(self.content)
        elif isinstance(self._dtype, _Dtype):
            flat = self._dtype.numbers(self.content)
        else:
            raise ValueError("an array without a type")
        shape = self.shape
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array without a shape")
        if len(shape) > 8 or math.prod(shape) != len(flat):
            raise ValueError(f"{len(flat)} numbers in an array of {math.prod(shape)}")
        return flat.reshape(shape, order="F" if self._fortran else "C").copy()

    @property
    def values(self) -> list[Any]:
        """What is in it, flat: its objects, or its numbers.

        Raises:
            ValueError: it holds neither.
        """
        if isinstance(self.content, list):
            return self.content
        return self._dtype.numbers(self.content).tolist()  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return repr(self.values)


def as_numbers(value: Any) -> NDArray[Any]:
    """An array of what a pickle holds: an `Array`, a list of numbers, or a number.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, Array):
        return value.numbers()
    flat = value if isinstance(value, list | tuple) else [value]
    if not all(type(one) in (int, float, bool) for one in flat):
        raise ValueError("what should be numbers is something else")
    array = np.array(flat) if len(flat) else np.zeros(0)
    if array.dtype.kind not in "biuf":
        raise ValueError("a number that no array holds")
    return array if isinstance(value, list | tuple) else array.reshape(())


def load(file: IO[bytes]) -> Any:
    """What was pickled, by this Python or by Python 2, as text of latin1.

    Returns:
        dicts, lists, tuples, texts, bytes, numbers, None, and `Array`s.  A part may stand in
        several places, and in itself: walk through it with an eye to that.

    Raises:
        NotPlain: it asks for anything else, none of which has then been run.
        Exception: whatever else damaged bytes make pickle raise.
    """
    # A file would make room for whatever a damaged length asks for; a buffer, for what it holds.
    return _Plain(io.BytesIO(file.read()), encoding="latin1").load()


class _Dtype:
    """Stands in for numpy.dtype: a code such as "O8" or "i8", and a byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numbers(self, content: Any) -> NDArray[Any]:
        """Raises ValueError when the type is not one of numbers."""
        kind = f"{self.order}{self.code}"
        if not re.fullmatch(r"[<>|=](b1|[iu][1248]|f[248])", kind):
            raise ValueError("a type that is none of numbers")
        data = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(data, bytes):
            raise ValueError("an array without its bytes")
        dtype = np.dtype(kind)
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)


class _Scalar:
    """Stands in for the function that makes one of numpy's numbers: a plain number."""

    def __new__(cls, dtype: _Dtype, content: str | bytes) -> Any:
        return dtype.numbers(content)[0].item()

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a number has no state")


class _FromBuffer:
    """Stands in for the function that makes an array of protocol 5."""

    def __new__(cls, content: bytes, dtype: _Dtype, shape: Any, order: str) -> Any:
        array = Array()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a function has no state")


class _Encoded:
    """How protocols up to 2 write bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise NotPlain("an encoding other than latin1")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a function has no state")


class _NoBytes:
    """How protocols up to 2 write bytes of which there are none."""

    def __new__(cls) -> Any:
        return b""

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a function has no state")


class _Ordered:
    """Stands in for OrderedDict: a dict."""

    def __new__(cls, items: Any = ()) -> Any:
        made: dict[Any, Any] = {}
        for key, value in items:
            _check_keys([key])
            made[key] = value
        return made

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a dict has no state")


_KNOWN: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("_codecs", "encode"): _Encoded,
    ("__builtin__", "bytes"): _NoBytes,
    ("collections", "OrderedDict"): _Ordered,
}


def _check_keys(keys: list[Any]) -> None:
    if not all(type(key) in PLAIN for key in keys):
        raise NotPlain("a dictionary whose keys are containers")


class _Plain(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        try:  # numpy 2 writes _core for what older ones call core
            return _KNOWN[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise NotPlain(f"it asks for {module}.{name}") from None

    def load_dict(self) -> None:
        items: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        _check_keys(items[::2])
        self.append(dict(zip(items[::2], items[1::2], strict=True)))  # type: ignore[attr-defined]

    def load_setitem(self) -> None:
        value = self.stack.pop()  # type: ignore[attr-defined]
        key = self.stack.pop()  # type: ignore[attr-defined]
        _check_keys([key])
        self.stack[-1][key] = value  # type: ignore[attr-defined]

    def load_setitems(self) -> None:
        items: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        _check_keys(items[::2])
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))  # type: ignore[attr-defined]

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        self.append(self.read(size))  # type: ignore[attr-defined]

    def refuse(self) -> None:
        raise NotPlain("what plain data does not need")

    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    for _code in (b"\x8f", b"\x90", b"\x91", *(pickle.EXT1, pickle.EXT2, pickle.EXT4)):
        dispatch[_code[0]] = refuse  # sets, and names that a registry keeps
