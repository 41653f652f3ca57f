"""What a training or an evaluation works on: regions, and the queries that go with them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import Dataset, own_images
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.features import RegionReader
from cqr.trainer.models import UNTRAINED
from cqr.trainer.text.joint import Joint
from cqr.trainer.training.fitting import seen
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings

OWN = ("table", "attributes")
"""Data sets that are users' own tables, which follow no published protocol."""


@dataclass(frozen=True)
class Material:
    """A data set held against the images that have regions.

    Attributes:
        reader: of the regions, all of them; what works with a model takes `seen_by`.
        notes: what is to be said about it, in sentences.
    """

    reader: RegionReader
    dataset: Dataset
    notes: list[str]

    def seen_by(self, settings: Settings) -> Self:
        """The same, with the regions as a model of these settings is given them.

        Raises:
            UserError: the file holds fewer regions.
        """
        return replace(self, reader=seen(self.reader, settings))

    def recommended(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Settings that the data set recommends; with its own table a user starts from zero-shot.

        That is so where the features share a space with texts, since a run from there is never
        below it on held-out queries, and `cqr evaluate` says what was learned.

        Args:
            given: settings that were asked for; some go with no such start.
        """
        told = dict(self.dataset.recommended)
        other = {"learners", "snr", "text_encoder"} & given.keys()
        trained = given.get("model") not in UNTRAINED
        if (
            self.dataset.name in OWN
            and trained
            and not other
            and Joint.of(self.reader.file.detector)
        ):
            told["start"] = "joint"
        return told


@dataclass(frozen=True)
class Wanted:
    """Which data set, as the user said it or a run recorded it.

    Attributes:
        data: a folder or a table; None looks for it.
        name: of the data set; None recognises it.
        chosen: among its options, as typed: NAME=VALUE each.
        before: the name of a run's data set and what was chosen for it.
    """

    data: Path | None = None
    name: str | None = None
    chosen: tuple[str, ...] = ()
    before: tuple[str, Mapping[str, Any]] = ("", {})

    def read(self, pictures: Pictures) -> Dataset:
        """Raises UserError when none is recognised, or it is broken."""
        found = find(pictures, self.data, self.name)
        name, options = self.before
        return read(found, pictures, options if name == found.name else {}, self.chosen)


def collect(
    features: Path,
    wanted: Wanted = Wanted(),
    *,
    split: str | None = None,
    max_missing: float = 0.01,
) -> Material:
    """Open a feature file and the data set that goes with it.

    Args:
        split: "scored" or "submitted" leaves out every split but that one; None
            leaves out the one whose truth a server keeps.

    Raises:
        UserError: the file is not whole, no data set was recognised, it is
            broken, or more than the share `max_missing` of its images is missing.
    """
    reader = RegionReader(features)
    file = reader.file
    dataset = wanted.read(Pictures(Path(file.image_root), file.paths, Path(file.path)))
    if split is None:
        check_trains(dataset, features)
    dataset, said = present(_only(dataset, split), reader, max_missing)
    return Material(reader, dataset, [*dataset.notes, *said])


def collect_for(
    run: Run, features: Path | None, wanted: Wanted, *, split: str | None, max_missing: float
) -> Material:
    """What a run is to be used on: what it was trained on, but for what is wanted.

    `split` is that of `collect`.  With other features the data set is looked for anew,
    since it may be another.
    """
    data, name = wanted.data, wanted.name
    if features is None and data is None:
        data, name = run.data, name or run.dataset or None  # a run may be of no data set
    return collect(
        features or run.features,
        replace(wanted, data=data, name=name, before=(run.dataset, run.protocol)),
        split=split,
        max_missing=max_missing,
    )


def _only(dataset: Dataset, split: str | None) -> Dataset:
    """The data set without what is not needed, so that its images need not be there."""
    protocol, queries, images = dataset.protocol, dataset.queries, dataset.images
    one = protocol.scored if split == "scored" else protocol.submitted
    kept = ["train", "val", protocol.scored] if split is None else [one]
    return replace(
        dataset,
        queries=queries[queries["split"].isin(kept)],
        images=images[images["split"].isin(kept) | images["split"].isna()],
    )


def check_trains(dataset: Dataset, features: Path) -> None:
    """Raises UserError when a data set lists no training pairs and has no rule to draw some."""
    if dataset.split("train").empty and "group" not in dataset.images:
        raise UserError(
            f"there is nothing to train on in {dataset.root} (the pairs of {dataset.name} are "
            f"{dataset.protocol.pairs}): train on another data set, then score that run here with "
            f"`cqr evaluate --run RUN --features {features}`"
        )


def present(
    dataset: Dataset, reader: RegionReader, max_missing: float
) -> tuple[Dataset, list[str]]:
    """Hold a data set against the images that have regions.

    Training queries that lack one are left out; others stay, and count as
    not found when their reference or every correct image is missing.

    Returns:
        The data set, its images marked and its training queries cut to those
        that have regions, and what is to be said about it.

    Raises:
        UserError: more than the share `max_missing` of the images is missing.
    """
    known = set(reader.paths)
    queries = dataset.queries
    named = dataset.needed()
    missing = [path for path in named if path not in known]
    if not missing:
        return dataset, []
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    said = f"{len(missing)} of {len(named)} images have no regions in {reader.file.path}: {shown}"
    if len(missing) > max_missing * len(named):
        root = reader.file.image_root
        what = f"extract them with `cqr extract --images {root} --k {reader.file.k} --out"
        what += f" {reader.file.path} --retry-failed`"
        if os.path.isdir(root) and not any(
            os.path.isfile(os.path.join(root, path)) for path in missing
        ):
            what = f"none of these is in {root}: put them there and extract them"
        raise UserError(f"{said}; {what}, or allow it with --max-missing")
    whole = queries["reference"].isin(known) & own_images(queries).isin(known)
    whole &= queries["target"].isin(known) | queries["target"].isna()
    keep = whole | (queries["split"] != "train")
    images = dataset.images.assign(there=dataset.images["path"].isin(known))
    left = int(((images["split"] == "train") & images["path"].isin(missing)).sum())
    said = (
        f"{said}; {int((~keep).sum())} training queries and {left} training images are left out, "
        f"{int((~whole & keep).sum())} other queries lack an image and are scored all the same"
    )
    return replace(dataset, queries=queries[keep], images=images), [said]
