"""Read a feature file through and say what is in it and what is wrong with it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cqr.pipeline.feature_file import FeatureFile
from cqr.pipeline.shards import Rows, Shard
from cqr.remote import is_remote, source


@dataclass
class Findings:
    """What reading a feature file through has shown.

    Attributes:
        pictures, regions: how many; rows beyond a picture's count are no regions.
        full: pictures that have K regions.
        score: lowest and highest of a region.
        largest: the largest absolute value of a feature.
        problems: one sentence each, naming the picture; empty if all is well.
    """

    pictures: int = 0
    regions: int = 0
    full: int = 0
    score: tuple[float, float] = (np.inf, -np.inf)
    largest: float = 0.0
    problems: list[str] = field(default_factory=list)


def examine(file: FeatureFile) -> Findings:
    """Check every value of a feature file, a block of rows at a time."""
    findings, problems = Findings(), []
    if len(set(file.paths)) != len(file.paths):
        problems.append("a path is there more than once")
    with ThreadPoolExecutor(1) as beside:  # sums let go of Python while they read bytes
        damage = beside.submit(file.damage)
        for rows in file.blocks():
            _examine_rows(file, rows, findings)
        problems += damage.result()
    with h5py.File(source(file.path), "r") as joined:
        for shard in file.shards:
            problems += _against_joined(file, shard, joined)
    findings.problems[:0] = problems
    return findings


def _against_joined(file: FeatureFile, shard: Shard, joined: h5py.File) -> Iterator[str]:
    """Whether the joining file shows the shard's rows where it says, and under their names."""
    rows = slice(shard.first, shard.first + shard.rows)
    with h5py.File(source(shard.path), "r") as content:
        paths = list(content["images/path"].asstr()[:])
        if paths != sorted(paths):
            yield f"{shard.path.name} is not sorted by path"
        if paths != file.paths[rows]:
            yield f"{shard.path.name} holds other paths than {file.path.name} says"
        if not np.array_equal(content["images/size"][:], file.sizes[rows]):
            yield f"{shard.path.name} holds other sizes than {file.path.name} says"
        if is_remote(file.path):  # HDF5 finds no shards there: who copies the files has them
            return
        for name in ("regions/scores", "regions/count"):
            if not np.array_equal(content[name][:], joined[name][rows], equal_nan=True):
                yield f"{name} of {shard.path.name} reads otherwise through {file.path.name}"


def _examine_rows(file: FeatureFile, rows: Rows, findings: Findings) -> None:
    array = rows.arrays
    count = array["regions/count"]
    real = np.arange(file.k) < count[:, None]
    width, height = array["images/size"][:, :, None].swapaxes(0, 1)
    x1, y1, x2, y2 = np.moveaxis(array["regions/boxes"], 2, 0)
    inside = (x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= width) & (y2 <= height)
    wrong = {
        "has a size below 1 x 1": (array["images/size"] < 1).any(1),
        f"has a count that is not 1 to {file.k}": (count < 1) | (count > file.k),
        "has a box outside the picture": (real & ~inside).any(1),
    }
    of_regions = ["regions/features", "regions/boxes", "regions/scores", *file.header.extras]
    for name in [*of_regions, "whole/features"]:
        largest, infinite = _largest(array[name], file.k if name in of_regions else 1)
        wrong[f"has values in {name} that are not finite"] = (largest >= infinite).any(1)
        if name in of_regions:
            wrong[f"has {name} beyond its count"] = (~real & (largest > 0)).any(1)
        if name == "regions/features":
            most = np.max(largest, initial=0, where=largest <= infinite).view(array[name].dtype)
            findings.largest = max(findings.largest, float(most))
    for what, where in wrong.items():
        findings.problems += [f"{rows.paths[i]!r} {what}" for i in np.flatnonzero(where)]

    scores = array["regions/scores"][real]
    findings.pictures += len(count)
    findings.regions += int(real.sum())
    findings.full += int((count == file.k).sum())
    findings.score = (
        float(min(findings.score[0], scores.min(initial=np.inf))),
        float(max(findings.score[1], scores.max(initial=-np.inf))),
    )


def _largest(values: NDArray[Any], parts: int) -> tuple[NDArray[Any], int]:
    """Of N rows each of whose `parts` the greatest magnitude, N x parts, and infinity.

    As whole numbers, the bits of floats but for their signs, which are in the order of the
    magnitudes, infinity after all numbers, and what is no number last: numpy looks through them
    several times as fast as through floats of 16 bits.  Of whole numbers, as imported files may
    have: whether any is not 0, and what none reaches.
    """
    values = values.reshape(len(values), parts, -1)
    if values.dtype.kind != "f":
        return (values != 0).any(2), 2
    whole = np.dtype(f"u{values.dtype.itemsize}")
    infinite = int(np.array(np.inf, values.dtype).view(whole))
    bits = values.view(whole) & whole.type(np.iinfo(whole).max >> 1)
    return bits.max(2, initial=0), infinite
