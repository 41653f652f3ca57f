"""Build a gallery: encode the pictures that it lacks, drop those that are gone."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.search import gallery
from cqr.search.gallery import Gallery, Vectors
from cqr.search.metadata import read_metadata
from cqr.search.source import difference, source
from cqr.trainer.features import RegionReader
from cqr.trainer.ranking.encode import encode_images, require_finite
from cqr.trainer.training.runs import Run

PARTIAL = "gallery.partial.safetensors"
"""What an interrupted build had encoded; the next one takes it from there."""

BLOCK = 2048
"""Pictures encoded between two looks at the clock."""

SAVE_EVERY = 60.0
"""Seconds of encoding that a kill may cost."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Attributes:
        gallery: as it is now.
        computed: pictures encoded now.
        kept: pictures encoded before.
        dropped: pictures that were in the gallery before and are no longer.
        absent: pictures that have regions, but whose file is not there.
        anew: why nothing of an older gallery could be kept, or "".
        notes: how the metadata was read.
    """

    gallery: Gallery
    computed: int
    kept: int
    dropped: int
    absent: int
    anew: str
    notes: list[str]


def build(
    run: Run,
    reader: RegionReader,
    *,
    metadata: Path | None = None,
    device: torch.device,
    progress: Progress = lambda done, total: None,
) -> Built:
    """The gallery of a run over a feature file; vectors that are there already are kept.

    A picture whose file is gone is left out, if the image folder itself is there.
    Interrupted, it goes on when it is called again.

    Args:
        metadata: a table with a column `path`; None for the one of the last time.

    Raises:
        UserError: the run does not fit the features, a vector is not finite, the
            metadata cannot be used, no picture is left, or the disk is full.
    """
    folder = gallery.folder_of(run, reader.file.path)
    made_of = source(run, reader)
    old = _read(folder / gallery.NAME)
    paths = _there(reader)
    described_by = metadata.resolve() if metadata else old.described_by if old else None
    table = pd.DataFrame({"path": paths})
    notes: list[str] = []
    if described_by is not None:
        described = read_metadata(described_by, paths)
        table, notes = table.join(described.table), described.notes

    known = [g for g in (old, _read(folder / PARTIAL)) if g and g.source == made_of]
    vectors, lacking = _kept(paths, known)
    if len(lacking):

        def save(done: NDArray[np.bool_], encoded: Vectors) -> None:
            gallery.write(folder / PARTIAL, made_of, table.loc[done, ["path"]], encoded[done])

        vectors = _encoded(run, reader, paths, vectors, lacking, save, device, progress)
    assert vectors is not None
    if old in known and old.described_by == described_by and old.table.equals(table):
        new = old
    else:
        extends = old.id if old in known and old.paths == paths[: len(old)] else ""
        new = gallery.write(
            folder / gallery.NAME,
            made_of,
            table,
            vectors,
            extends=extends,
            described_by=described_by,
        )
    (folder / PARTIAL).unlink(missing_ok=True)
    return Built(
        gallery=new,
        computed=len(lacking),
        kept=len(paths) - len(lacking),
        dropped=len(set(old.paths) - set(paths)) if old else 0,
        absent=len(reader) - len(paths),
        anew=difference(old.source, made_of) if old else "",
        notes=notes,
    )


def _read(file: Path) -> Gallery | None:
    """The gallery in a file, if there is one that can be used."""
    try:
        return gallery.read(file) if file.exists() else None
    except UserError:
        return None  # it is about to be replaced


def _there(reader: RegionReader) -> list[str]:
    root = reader.file.image_root
    if not os.path.isdir(root):
        return reader.paths
    paths = [path for path in reader.paths if os.path.lexists(os.path.join(root, path))]
    if not paths:
        raise UserError(
            f"none of the pictures of {reader.file.path} is in {root} any longer: bring them "
            "back, or extract those that are there"
        )
    return paths


def _kept(paths: list[str], known: list[Gallery]) -> tuple[Vectors | None, NDArray[np.int64]]:
    """N x E, filled where a gallery knows the path, and the rows that none knows."""
    vectors = None
    lacks = np.ones(len(paths), bool)
    for one in known:
        if vectors is None:
            vectors = np.zeros((len(paths), one.vectors.shape[1]), np.float16)
        there = np.array([one.rows.get(path, -1) for path in paths])
        found = lacks & (there >= 0)
        vectors[found] = one.vectors[there[found]]
        lacks &= ~found
    return vectors, np.flatnonzero(lacks)


@torch.inference_mode()
def _encoded(
    run: Run,
    reader: RegionReader,
    paths: list[str],
    vectors: Vectors | None,
    lacking: NDArray[np.int64],
    save: Callable[[NDArray[np.bool_], Vectors], None],
    device: torch.device,
    progress: Progress,
) -> Vectors:
    """`vectors` with its lacking rows filled; what is done is saved now and then."""
    model = run.trained_model().to(device)
    done = np.ones(len(paths), bool)
    done[lacking] = False
    rows = reader.rows(paths)
    saved = time.monotonic()
    progress(0, len(lacking))
    for first in range(0, len(lacking), BLOCK):
        part = lacking[first : first + BLOCK]
        encoded = encode_images(model, reader, rows[part], device)
        require_finite(encoded, [paths[row] for row in part], reader)
        found = encoded.float().cpu().numpy()
        if vectors is None:
            vectors = np.zeros((len(paths), found.shape[1]), np.float16)
        vectors[part] = found
        done[part] = True
        progress(first + len(part), len(lacking))
        if time.monotonic() - saved > SAVE_EVERY:
            save(done, vectors)
            saved = time.monotonic()
    assert vectors is not None
    return vectors
