"""The pictures that can be found: one vector each, and what is known of them.

    RUN/index/gallery.safetensors      RUN/index-NAME/ over another feature file, NAME.h5

The file is replaced as a whole, and its vectors are mapped: whoever has the old
one open keeps it.
"""

import io
import json
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from cqr.errors import UserError, scarcity
from cqr.trainer.training.checkpoint import save_tensors
from cqr.trainer.training.runs import Run

if TYPE_CHECKING:  # a question without a condition needs none of it
    import pandas as pd

FORMAT, VERSION = "cqr-gallery", "1"
NAME = "gallery.safetensors"

Vectors = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Gallery:
    """N pictures of one feature file, as one run sees them.

    Attributes:
        folder: where the file lies.
        id: another one whenever anything here is.
        source: what decides the vectors; see `source.source`.
        extends: the id of a gallery whose vectors are the first of these, or "".
        described_by: the file that the metadata came from, absolute; None without.
        paths: N, as in the feature file and in its order.
        vectors: N x E float16, unit length but for the rounding; mapped.
        held: the table as bytes of Parquet.
    """

    folder: Path
    id: str
    source: dict[str, Any]
    extends: str
    described_by: Path | None
    paths: list[str]
    vectors: Vectors
    held: bytes

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def table(self) -> "pd.DataFrame":
        """N rows: `path`, then the columns of the metadata; a value that is not known is NA."""
        import pandas as pd

        return pd.read_parquet(io.BytesIO(self.held))

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each path."""
        return {path: row for row, path in enumerate(self.paths)}

    @property
    def metadata(self) -> "pd.DataFrame":
        """The table without the paths."""
        return self.table.drop(columns="path")


def folder_of(run: Run, features: Path) -> Path:
    """Where the gallery of a run over a feature file lies."""
    own = features.resolve() == run.features.resolve()
    return run.path / ("index" if own else f"index-{features.stem}")


def open_gallery(folder: Path) -> Gallery:
    """Raises UserError when there is none, or it is damaged or of another version."""
    file = folder / NAME
    if not file.is_file():
        raise UserError(f"there is no index in {folder} yet: build it with `cqr index`")
    return read(file)


def read(file: Path) -> Gallery:
    """Raises UserError when the file is damaged or of another version."""
    try:
        with safe_open(file, "pt") as content:  # torch maps; numpy would copy
            about = content.metadata() or {}
            if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
                raise UserError(
                    f"{file} is {about.get('format')!r} version {about.get('version')!r}, this cqr "
                    f"reads {FORMAT!r} version {VERSION!r}: delete it and run `cqr index`"
                )
            vectors = content.get_tensor("vectors").numpy()
            held = content.get_tensor("table").numpy().tobytes()
        # all of it, so that damage is found; `read_table` would load pandas
        table = pyarrow.parquet.ParquetFile(io.BytesIO(held)).read()
        paths = table["path"].to_pylist()
        if vectors.dtype != np.float16 or vectors.ndim != 2 or len(paths) != len(vectors):
            raise ValueError(f"{len(paths)} paths, vectors {vectors.shape} {vectors.dtype}")
        if len(set(paths)) != len(paths):
            raise ValueError("a path comes twice")
        described_by = Path(about["metadata"]) if about["metadata"] else None
        source = json.loads(about["source"])
        return Gallery(
            file.parent, about["id"], source, about["extends"], described_by, paths, vectors, held
        )
    except UserError:
        raise
    except Exception as error:  # the readers of damaged bytes raise what they like
        if why := scarcity(error):
            raise UserError(f"cannot read {file}: {why}") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is damaged ({reason}): delete it and run `cqr index`") from error


def write(
    file: Path,
    source: dict[str, Any],
    table: "pd.DataFrame",
    vectors: Vectors,
    *,
    extends: str = "",
    described_by: Path | None = None,
) -> Gallery:
    """Replace the file, and read it again.

    Raises:
        UserError: it cannot be written.
    """
    held = io.BytesIO()
    table.to_parquet(held, index=False)
    tensors = {
        "vectors": torch.from_numpy(vectors),
        "table": torch.frombuffer(held.getbuffer(), dtype=torch.uint8),
    }
    about = {
        "format": FORMAT,
        "version": VERSION,
        "id": secrets.token_hex(8),
        "source": json.dumps(source, sort_keys=True),
        "extends": extends,
        "metadata": str(described_by or ""),
    }
    save_tensors(file, tensors, about)
    return read(file)
