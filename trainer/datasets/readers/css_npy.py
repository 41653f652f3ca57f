"""Read a pickle of Python 2 inside an .npy, such as TIRG's CSS file, without running it.

`cqr.unpickle` reads it, in some seconds for TIRG's file.
"""

import io
from pathlib import Path
from typing import IO, Any

import numpy as np

from cqr.errors import UserError
from cqr.unpickle import NotPlain
from cqr.unpickle import load as unpickled

LIMIT = 2**28
"""Bytes.  The released file describes some 38,000 scenes of a few objects each."""


def load(path: Path) -> Any:
    """The one object of the file: dicts, lists, texts, numbers, None, and `unpickle.Array`s.

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
        [content] = unpickled(file).values
        return content
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except NotPlain as error:
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
