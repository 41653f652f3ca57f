"""Read a pickle of Python 2 inside an .npy, such as TIRG's CSS file, without running it.

A pickle names functions and has them called, so a reader that lets it runs whatever
the file says.  Here it may name only what an array needs, and gets the stand-ins
below for it: none of numpy's code is reached but the reading of plain numbers.
The unpickler is the one written in Python (some seconds for TIRG's file), since the
one in C takes as much memory as a damaged file tells it to.
"""

import io
import pickle
import re
from pathlib import Path
from typing import IO, Any

import numpy as np

from cqr.errors import UserError

LIMIT = 2**28
"""Bytes.  The released file describes some 38,000 scenes of a few objects each."""


class Array:
    """Stands in for numpy.ndarray, and for the function that makes one: its values, flat.

    (`__setstate__` here and below also keeps a pickle from changing the class itself.)
    """

    def __init__(self, *_: Any) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        _, _, dtype, _, content = state
        self.values = content if isinstance(content, list) else dtype.numbers(content)

    def __repr__(self) -> str:
        return repr(self.values)


class _Dtype:
    """Stands in for numpy.dtype: a code such as "O8" or "i8", and a byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numbers(self, content: str | bytes) -> list[int | float | bool]:
        """Raises ValueError when the type is not one of numbers."""
        kind = f"{self.order}{self.code}"
        if not re.fullmatch(r"[<>|][biuf]\d", kind):
            raise ValueError(f"{kind} is no type of numbers")
        data = content.encode("latin1") if isinstance(content, str) else content
        numbers: list[int | float | bool] = np.frombuffer(data, kind).tolist()
        return numbers


class _Scalar:
    """Stands in for the function that makes one of numpy's numbers: a plain number."""

    def __new__(cls, dtype: _Dtype, content: str | bytes) -> Any:
        return dtype.numbers(content)[0]

    def __setstate__(self, state: Any) -> None:
        raise TypeError("a number has no state")


_KNOWN = {("numpy", "ndarray"): Array, ("numpy", "dtype"): _Dtype}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before numpy 2, and since
    _KNOWN |= {(_module, "_reconstruct"): Array, (_module, "scalar"): _Scalar}


class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _NotKnown(f"{module}.{name}")
        return _KNOWN[module, name]


class _NotKnown(Exception):
    """A pickle asks for more than plain data."""


def load(path: Path) -> Any:
    """The one object of the file: dicts, lists, texts, numbers, None, and `Array`s.

    Texts of Python 2 are read as Latin-1.

    Raises:
        UserError: the file cannot be read, is too large, is no pickle of one object, or
            asks for anything beyond plain data, none of which has then been run.
    """
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise UserError(f"{path} has {size} bytes, too many for what it should be")
        file = io.BytesIO(path.read_bytes())
        _skip_header(file)
        [content] = _Unpickler(file, encoding="latin1").load().values
        return content
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except _NotKnown as error:
        raise UserError(
            f"{path} asks for {error}, which plain data does not need and which could run any "
            "code: it is not read; delete it and get the data set from a source that you trust"
        ) from None
    except UserError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        raise UserError(
            f"{path} is no .npy of one pickled object ({type(error).__name__}): download it again"
        ) from error


def _skip_header(file: IO[bytes]) -> None:
    """Raises ValueError when it is not the header of one object."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"{shape} of {dtype}")
