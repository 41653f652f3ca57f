"""What a training or an evaluation works on: regions, and the queries that go with them."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets import recognise
from cqr.trainer.features import RegionReader
from cqr.trainer.queries import Dataset


@dataclass(frozen=True)
class Material:
    """A data set held against the images that have regions.

    Attributes:
        notes: what is to be said about it, in sentences.
    """

    reader: RegionReader
    dataset: Dataset
    notes: list[str]


def collect(
    features: Path, data: Path | None = None, k: int | None = None, max_missing: float = 0.01
) -> Material:
    """Open a feature file and the data set that goes with it.

    Raises:
        UserError: the file is not whole, no data set was recognised, it is
            broken, or more than the share `max_missing` of its images is missing.
    """
    reader = RegionReader(features, k)
    dataset = recognise(reader.file, data)
    dataset, said = present(dataset, reader, max_missing)
    return Material(reader, dataset, [*dataset.notes, *said])


def present(
    dataset: Dataset, reader: RegionReader, max_missing: float
) -> tuple[Dataset, list[str]]:
    """Hold a data set against the images that have regions.

    Training queries that lack one are left out; test queries stay, and count as
    not found when their reference or every correct image is missing.

    Returns:
        The data set, cut to the images and training queries that have regions,
        and what is to be said about it.

    Raises:
        UserError: more than the share `max_missing` of the images is missing.
    """
    known = set(reader.paths)
    queries = dataset.queries
    named = pd.unique(pd.concat([queries["reference"], queries["target"], dataset.images["path"]]))
    missing = [path for path in named if path not in known]
    if not missing:
        return dataset, []
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    said = f"{len(missing)} of {len(named)} images have no regions in {reader.file.path}: {shown}"
    if len(missing) > max_missing * len(named):
        again = f"cqr extract --images {reader.file.image_root} --k {reader.file.k}"
        raise UserError(
            f"{said}; extract them with `{again} --out {reader.file.path} --retry-failed`, "
            "or allow it with --max-missing"
        )
    whole = queries["reference"].isin(known) & queries["target"].isin(known)
    keep = whole | (queries["split"] == "test")
    said = (
        f"{said}; {int((~keep).sum())} training queries are left out, "
        f"{int((~whole & keep).sum())} test queries lack an image and are scored all the same"
    )
    images = dataset.images[dataset.images["path"].isin(known)]
    return replace(dataset, queries=queries[keep], images=images), [said]
