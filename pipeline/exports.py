"""A feature file's regions for other programs: .npz a picture, or one Parquet table."""

import glob
import json
import posixpath
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cqr.atomic import alone_at, replacing
from cqr.errors import UserError
from cqr.pipeline.feature_file import FeatureFile
from cqr.pipeline.imports.npz import EXTRAS, IN_ORDER
from cqr.pipeline.shards import Header, Rows

if TYPE_CHECKING:
    import pyarrow

FORMATS = ("npz", "parquet")

COLUMNS = {"classes": "class", "attributes": "attribute", "attribute_scores": "attribute_score"}
"""What one region's extra is called in the table."""

Progress = Callable[[int, int], None]


def export(file: FeatureFile, out: Path, format: str, progress: Progress) -> None:
    """Write the real regions of every picture, in their order, features as float32.

    npz: the folder `out`, a file a picture named by its path, as `imports.npz`
    describes it; files that are there are replaced, one by one.  parquet: the
    file `out`, a row a region, `path` and `region` first; it is whole or absent.

    Raises:
        UserError: no such format, a path that leads out of the folder, or no room, or
            another process is at `out`.
    """
    if format not in FORMATS:
        raise UserError(f"no format is named {format}; choose --format from {', '.join(FORMATS)}")
    if format == "npz":
        if out.is_file():
            raise UserError(f"{out} is a file; npz needs a folder, name another with --out")
        with alone_at(out, f"exporting into {out}"):
            _write_npz(file, out, progress)
    else:
        if out.is_dir():
            raise UserError(f"{out} is a folder; parquet needs a file, name another with --out")
        with alone_at(out, f"exporting into {out}"):
            _write_parquet(file, out, progress)


# --- npz -----------------------------------------------------------------------------------------


def _write_npz(file: FeatureFile, folder: Path, progress: Progress) -> None:
    names = iter(_names(file, folder))
    for leftover in folder.rglob(".*.partial"):  # of an export that was killed
        leftover.unlink()
    done = 0
    progress(done, len(file.paths))
    for rows in file.blocks():
        for i in range(len(rows.paths)):
            _write_picture(folder / next(names), rows, i)
        done += len(rows.paths)
        progress(done, len(file.paths))


def _names(file: FeatureFile, folder: Path) -> list[str]:
    """For each picture its file: without the suffix, unless two pictures differ in that alone."""
    for path in file.paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UserError(
                f"the path {path!r} of {file.path} leads out of {folder}; export with"
                f" --format parquet"
            )
    stems = [posixpath.splitext(path)[0] for path in file.paths]
    names = stems if len(set(stems)) == len(stems) else file.paths
    return [f"{name}.npz" for name in names]


def _write_picture(path: Path, rows: Rows, i: int) -> None:
    array = {name: values[i] for name, values in rows.arrays.items()}
    width, height = (int(value) for value in array["images/size"])
    n = int(array["regions/count"])
    info: dict[str, Any] = {
        "image_id": posixpath.splitext(posixpath.basename(rows.paths[i]))[0],
        "image_h": height,
        "image_w": width,
        "num_boxes": n,
        "objects_conf": array["regions/scores"][:n],
        IN_ORDER: True,
    }
    for ours, theirs in EXTRAS.items():
        if (values := array.get(f"regions/{ours}")) is not None:
            info[theirs] = values[:n].astype(np.int64) if values.dtype.kind == "i" else values[:n]
    members: dict[str, Any] = {
        "x": array["regions/features"][:n].astype(np.float32),
        "bbox": array["regions/boxes"][:n],
        "num_bbox": n,
        "image_h": height,
        "image_w": width,
        "info": info,
    }
    with (
        replacing(path) as temporary,
        # numpy's own writer takes level 6: five times as long, for 7 % less.
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, value in members.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asanyarray(value))


# --- parquet -------------------------------------------------------------------------------------


def _write_parquet(file: FeatureFile, out: Path, progress: Progress) -> None:
    import pyarrow.parquet

    for leftover in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):  # of a killed export
        leftover.unlink()
    schema = _schema(file.header)
    done = 0
    progress(done, len(file.paths))
    with (
        replacing(out) as temporary,
        pyarrow.parquet.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            use_dictionary=["path"],
            use_byte_stream_split=["feature.list.element"],
        ) as writer,
    ):
        for rows in file.blocks():
            writer.write_table(_table(rows, schema))
            done += len(rows.paths)
            progress(done, len(file.paths))


def _schema(header: Header) -> "pyarrow.Schema":
    import pyarrow as pa

    kinds = {"i": pa.int32(), "f": pa.float32()}
    extras = [
        pa.field(_column(name), kinds[np.dtype(dtype).kind])
        for name, dtype in header.extras.items()
    ]
    return pa.schema(
        [
            pa.field("path", pa.string()),
            pa.field("region", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            *(pa.field(name, pa.float32()) for name in ("x1", "y1", "x2", "y2", "score")),
            *extras,
            pa.field("feature", pa.list_(pa.float32(), header.dim)),
        ],
        metadata={"cqr": json.dumps(header.attributes())},
    )


def _column(name: str) -> str:
    last = posixpath.basename(name)
    return COLUMNS.get(last, last)


def _table(rows: Rows, schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Some pictures' real regions, a row each."""
    import pyarrow as pa

    array = rows.arrays
    k = array["regions/scores"].shape[1]
    real = np.arange(k) < array["regions/count"][:, None]
    picture, region = np.nonzero(real)
    boxes = array["regions/boxes"][real]
    features: NDArray[np.float32] = array["regions/features"][real].astype(np.float32)
    columns = {
        "path": pa.array(rows.paths).take(pa.array(picture)),
        "region": region.astype(np.int32),
        "width": array["images/size"][picture, 0],
        "height": array["images/size"][picture, 1],
        **{name: boxes[:, i] for i, name in enumerate(("x1", "y1", "x2", "y2"))},
        "score": array["regions/scores"][real],
        **{_column(n): v[real] for n, v in array.items() if _column(n) in schema.names},
        "feature": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
    }
    return pa.Table.from_pydict(columns, schema=schema)
