"""Pickles of strangers: arrays, numbers, text and plain containers are read, and nothing runs."""

import pickle
from typing import IO, Any

import numpy as np


def load(file: IO[bytes]) -> Any:
    """What was pickled, by this Python or by Python 2, as text of latin1.

    Raises:
        pickle.UnpicklingError: it asks for anything else than is admitted.
        Exception: whatever else damaged bytes make pickle raise.
    """
    return _Plain(file, encoding="latin1").load()


def _encoded(text: str, encoding: str) -> bytes:
    """How protocols up to 2 write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding} is not admitted")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("numpy.core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): dict,
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:  # numpy 2 writes _core for what older ones call core
            return _ADMITTED[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
