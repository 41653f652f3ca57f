"""The one table of queries, whatever the data set, and its protocol as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LIGHT = {"width": 128, "heads": 4, "vep_depth": 1, "tep_depth": 1}
"""Recommended for up to some ten thousand queries: on generated CSS no wider or deeper LBF was
better, and it trains in minutes on a CPU."""

QUERY_COLUMNS = ["query_id", "reference", "text", "target", "split"]


@dataclass(frozen=True)
class Protocol:
    """How a data set is scored.

    Attributes:
        name: short, for tables.
        source: whose protocol it is.
        gallery: "split", the images of the split; or "all", every image of the
            feature file.
        remove_reference: whether the query's own image is taken out of the gallery.
        correct: "caption", every gallery image with the target's caption; or
            "target", every target that the split lists for the same reference
            and text.
        recall_at: the k of Recall@k.
    """

    name: str
    source: str
    gallery: Literal["split", "all"]
    remove_reference: bool
    correct: Literal["caption", "target"]
    recall_at: tuple[int, ...]

    def sentence(self) -> str:
        """The protocol in words that a paper could quote."""
        gallery = {
            "split": "all images of the test split",
            "all": "all images of the feature file",
        }[self.gallery]
        reference = "removed from" if self.remove_reference else "kept in"
        correct = {
            "caption": "every gallery image whose caption equals the target's",
            "target": "every target listed for the same reference and text",
        }[self.correct]
        ks = ", ".join(map(str, self.recall_at))
        return (
            f"{self.source}: the gallery is {gallery}, the reference is {reference} it, "
            f"correct is {correct}, equal scores rank in gallery order, Recall@k for k = {ks}."
        )


@dataclass(frozen=True)
class Dataset:
    """Queries, images and protocol of one data set.

    Attributes:
        name: of the data set.
        root: where it was read.
        queries: query_id, reference, text, target, split ("train" or "test"),
            then columns of the data set's own.
        images: path, caption, split; caption is None where there is none.
        protocol: how it is scored.
        recommended: training settings that suit it, by name; what the user says wins.
        breakdown: columns of `queries` by which results are also reported.
        notes: what the reader had to decide, to be said aloud.
    """

    name: str
    root: Path
    queries: pd.DataFrame
    images: pd.DataFrame
    protocol: Protocol
    recommended: Mapping[str, object] = field(default_factory=dict)
    breakdown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> pd.DataFrame:
        return self.queries[self.queries["split"] == name]

    def gallery(self, split: str) -> list[str]:
        """Paths of the images that the queries of a split are scored against."""
        if self.protocol.gallery == "all":
            return self.images["path"].tolist()
        return self.images.loc[self.images["split"] == split, "path"].tolist()


@dataclass(frozen=True)
class Task:
    """Queries against a gallery, by index.

    Attributes:
        queries: the rows of the queries table that are scored.
        gallery: G image paths.
        reference: Q int64, the reference's place in the gallery if it is to be
            removed, else -1.
        correct: for each query the places of its correct images in the gallery,
            int64, sorted; possibly none.
    """

    queries: pd.DataFrame
    gallery: list[str]
    reference: NDArray[np.int64]
    correct: list[NDArray[np.int64]]


def task(dataset: Dataset, queries: pd.DataFrame, gallery: list[str]) -> Task:
    """Apply the data set's protocol to some of its queries and a gallery."""
    place = pd.Series(np.arange(len(gallery)), index=gallery)
    place = place[~place.index.duplicated(keep="last")]
    reference = place.reindex(queries["reference"]).fillna(-1).to_numpy(np.int64)
    if dataset.protocol.correct == "caption":
        caption = dataset.images.drop_duplicates("path").set_index("path")["caption"]
        members = _places(caption.reindex(gallery).to_numpy())
        keys = caption.reindex(queries["target"]).to_numpy()
    else:
        pairs = list(zip(queries["reference"], queries["text"], strict=True))
        targets = place.reindex(queries["target"]).to_numpy()
        listed = pd.DataFrame({"key": pairs, "place": targets}).dropna()
        members = {
            key: np.unique(group.to_numpy(np.int64))
            for key, group in listed.groupby("key")["place"]
        }
        keys = np.empty(len(pairs), dtype=object)
        keys[:] = pairs
    nothing = np.empty(0, dtype=np.int64)
    correct = [members.get(key, nothing) for key in keys]
    if dataset.protocol.remove_reference:
        correct = [c[c != r] for c, r in zip(correct, reference, strict=True)]
    else:
        reference = np.full(len(queries), -1)
    return Task(queries, gallery, reference, correct)


def _places(labels: NDArray[np.object_]) -> dict[object, NDArray[np.int64]]:
    """Where each label stands."""
    return {label: np.sort(i) for label, i in pd.Series(labels).groupby(labels).indices.items()}


def hold_out(dataset: Dataset, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cut training queries into (kept, held out), no reference in both.

    Args:
        fraction: of the references to hold out; 0 holds out none.
    """
    train = dataset.split("train")
    references = np.sort(train["reference"].unique())
    n = round(fraction * len(references))
    if fraction > 0:
        n = min(max(n, 1), len(references) - 1)
    drawn = np.random.default_rng(seed).permutation(references)[:n]
    held = train["reference"].isin(drawn)
    return train[~held], train[held]
