"""The one table of queries, whatever the data set, and its protocol as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.trainer.datasets.pairs import Listed, PairSource

QUERY_COLUMNS = ["query_id", "reference", "text", "target", "split"]

PHRASE = "phrase"
"""A column of queries whose data set knows it: the words of the text that refer to an object of
the reference."""
MEANT = ("meant_x1", "meant_y1", "meant_x2", "meant_y2")
"""Columns with the box of that object, in pixels of the picture; NaN where none is meant."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Protocol:
    """How a data set is trained on and scored.

    Attributes:
        name: short, for tables.
        source: whose protocol it is.
        gallery: what a query is scored against, in words.
        remove_reference: whether the query's own image is taken out of the gallery.
        own: what that image is called, in words.
        correct: "caption", every gallery image with the target's caption; "target",
            the query's target; or "alike", every target that the split lists for
            the same reference and text: rows that are alike in both are one query.
        described: what captions stand for, in words, where they are not the data set's own.
        recall_at: the k of Recall@k.
        scored: the split that is scored.
        submitted: the split whose truth a server keeps, if there is one.
        part: a column of queries and images: a query is scored against the
            gallery of its own part, and recall is the mean over the parts.
        also: columns of images by which recall is reported as well: an image with
            the target's value is then correct.
        subset_recall_at: the k of recall among the query's `members`.
        precision_at: the k of mean average precision over the query's `targets`.
        average: names of measures (see `ranking.measures`) whose mean is reported too.
        text: the form of the text, in words; "" as it is.
        pairs: how training pairs are drawn, in words.
    """

    name: str
    source: str
    gallery: str
    remove_reference: bool
    correct: Literal["caption", "target", "alike"]
    recall_at: tuple[int, ...]
    scored: str = "test"
    submitted: str | None = None
    own: str = "the reference"
    part: str | None = None
    also: tuple[str, ...] = ()
    subset_recall_at: tuple[int, ...] = ()
    precision_at: tuple[int, ...] = ()
    average: tuple[str, ...] = ()
    text: str = ""
    described: str = ""
    pairs: str = "every listed training query once an epoch"

    @property
    def recalls(self) -> list[str]:
        """Names of Recall@k, as papers print them."""
        return [f"R@{k}" for k in self.recall_at]

    def sentence(self) -> str:
        """The protocol in words that a paper could quote."""
        correct = {
            "caption": "every gallery image whose caption equals the target's",
            "target": "the target alone",
            "alike": "every target listed for the same reference and text",
        }[self.correct]
        if self.described:
            correct = f"every gallery image with the target's {self.described}"
        said = [
            f"{self.source}: the gallery is {self.gallery}",
            f"{self.own} is {'removed from' if self.remove_reference else 'kept in'} it",
            f"correct is {correct}",
            "equal scores rank in gallery order",
            f"Recall@k for k = {_listed(self.recall_at)}",
        ]
        if self.part:
            said.append(f"recall is the mean over every {self.part}")
        if self.also:
            said.append(f"recall also by {' and by '.join(self.also)} of the target alone")
        if self.subset_recall_at:
            said.append(
                "Recall_subset@k among the other members of the reference's image set for "
                f"k = {_listed(self.subset_recall_at)}"
            )
        if self.precision_at:
            said.append(
                "mAP@k, divided by min(k, number of correct images), for "
                f"k = {_listed(self.precision_at)}"
            )
        if self.average:
            said.append(f"average is the mean of {' and '.join(self.average)}")
        if self.text:
            said.append(f"a text is {self.text}")
        return f"{', '.join(said)}."


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


@dataclass(frozen=True)
class Dataset:
    """Queries, images and protocol of one data set.

    Attributes:
        name: of the data set.
        root: where it was read.
        queries: query_id, reference, text, target, split, then columns of the data
            set's own.  target is None where only a server knows it.  Where the
            protocol needs them: members and targets, each a list of images; gallery,
            a list of those that the query alone is scored against, or None; and
            own_image, the image of the gallery that shows what the reference does,
            where that is not the reference itself.
        images: path, caption, split, and columns of the data set's own; caption is
            None where there is none, split is None for an image of every split.
            An image of several splits or parts has as many rows.  Where training
            pairs are drawn from images, `group` says which are held out together.
            `there`, if it is there, says which have regions: the others are in no
            gallery, but what is known of them still says what is correct.
        protocol: how it is trained on and scored.
        pairs: makes the source of training pairs from queries and images of the
            training split.
        options: what was chosen among the data set's own options, by name.
        recommended: training settings that suit it, by name; what the user says wins.
        copies: pictures of one name are copies of one image; else such a name is refused.
        breakdown: columns of `queries` by which results are also reported.
        notes: what the reader had to decide, to be said aloud.
    """

    name: str
    root: Path
    queries: pd.DataFrame
    images: pd.DataFrame
    protocol: Protocol
    pairs: Callable[[pd.DataFrame, pd.DataFrame], PairSource] = Listed
    options: Mapping[str, Any] = field(default_factory=dict)
    recommended: Mapping[str, object] = field(default_factory=dict)
    copies: bool = True
    breakdown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> pd.DataFrame:
        return self.queries[self.queries["split"] == name]

    def images_of(self, split: str) -> pd.DataFrame:
        """The rows of the images of a split that are there, those of every split included."""
        images = self.images[(self.images["split"] == split) | self.images["split"].isna()]
        return images[images["there"]] if "there" in images else images

    def needed(self) -> list[str]:
        """The images that training or ranking uses, each once.

        Images of a split that is only trained on are needed where a pair has them,
        or where pairs are drawn from images.
        """
        queries, images = self.queries, self.images
        ranked = [self.protocol.scored, self.protocol.submitted]
        if "group" not in images:
            images = images[images["split"].isin(ranked) | images["split"].isna()]
        columns = [queries["reference"], own_images(queries), queries["target"], images["path"]]
        if "gallery" in queries:
            columns.append(queries["gallery"].explode())
        named = pd.concat(columns)
        paths: list[str] = pd.unique(named.dropna()).tolist()
        return paths

    def gallery(self, split: str) -> list[str]:
        """Paths of the images that the queries of a split are scored against."""
        return self.images_of(split)["path"].tolist()


@dataclass(frozen=True)
class Task:
    """Queries against a gallery, by index.

    Attributes:
        queries: the rows of the queries table that are scored.
        gallery: G image paths.
        reference: Q int64, the place in the gallery of the query's own image if it is
            to be removed, else -1.
        correct: for each query the places of its correct images in the gallery,
            int64, sorted; possibly none.
        members: Q x M int64, places of the query's image set without its
            reference, -1 for none; None where the protocol has no such sets.
        relevant: for each query the places of its `targets`, -1 for one that is
            not there; None where the protocol has no average precision.
        own: Q x M int64, the places of the gallery that the query alone is scored
            against, without what is to be removed, -1 for none; None where all are
            scored against the whole gallery.
    """

    queries: pd.DataFrame
    gallery: list[str]
    reference: Places
    correct: list[Places]
    members: Places | None = None
    relevant: list[Places] | None = None
    own: Places | None = None

    @property
    def size(self) -> Places:
        """Q: how many images each query is scored against."""
        if self.own is not None:
            own: Places = (self.own >= 0).sum(1)
            return own
        return len(self.gallery) - (self.reference >= 0).astype(np.int64)


def task(dataset: Dataset, queries: pd.DataFrame, gallery: list[str]) -> Task:
    """Apply the data set's protocol to some of its queries and a gallery.

    Of an image that the gallery lists twice, the last place is the one that is
    removed as a reference, as in TIRG's code.
    """
    protocol = dataset.protocol
    place = pd.Series(np.arange(len(gallery)), index=gallery)
    place = place[~place.index.duplicated(keep="last")]
    if protocol.correct == "alike":
        listed, queries = queries, queries.drop_duplicates(["reference", "text"])
    else:
        listed = queries
    reference = place.reindex(own_images(queries)).fillna(-1).to_numpy(np.int64)
    correct = _correct(dataset, queries, listed, gallery, place)
    members = None
    if protocol.subset_recall_at:
        members = _listed_places(queries["members"], place, reference)
    relevant = None
    if protocol.precision_at:
        known = place.to_dict()
        relevant = [
            np.array(sorted(known.get(image, -1) for image in images), dtype=np.int64)
            for images in queries["targets"]
        ]
    if protocol.remove_reference:
        correct = [c[c != r] for c, r in zip(correct, reference, strict=True)]
    else:
        reference = np.full(len(queries), -1)
    own = None
    if "gallery" in queries and all(isinstance(some, list) for some in queries["gallery"]):
        own = _listed_places(queries["gallery"].map(dict.fromkeys), place, reference)
        correct = [np.intersect1d(c, among) for c, among in zip(correct, own, strict=True)]
    return Task(queries, gallery, reference, correct, members, relevant, own)


def own_images(queries: pd.DataFrame) -> "pd.Series[str]":
    """The images that each query's gallery is without, if its protocol removes them."""
    return queries["own_image" if "own_image" in queries else "reference"]


def tasks(dataset: Dataset, split: str) -> list[Task]:
    """The tasks of a split: one for each part, or the one of all queries."""
    queries, part = dataset.split(split), dataset.protocol.part
    if part is None:
        return [task(dataset, queries, dataset.gallery(split))]
    images = dataset.images_of(split)
    return [
        task(dataset, queries[queries[part] == value], _paths(images[images[part] == value]))
        for value in sorted(queries[part].unique())
    ]


def _paths(images: pd.DataFrame) -> list[str]:
    return images["path"].tolist()


def captions(dataset: Dataset) -> "pd.Series[str] | None":
    """The caption of each picture, by path, where pictures of equal captions are equally right."""
    if dataset.protocol.correct != "caption":
        return None
    return dataset.images.drop_duplicates("path").set_index("path")["caption"]


def _correct(
    dataset: Dataset,
    queries: pd.DataFrame,
    listed: pd.DataFrame,
    gallery: list[str],
    place: "pd.Series[int]",
) -> list[Places]:
    """For each query the places of its correct images, its reference not yet removed.

    Args:
        listed: the rows that say which targets there are for a reference and a text.
    """
    nothing = np.empty(0, dtype=np.int64)
    caption = captions(dataset)
    if caption is not None:
        members = _places(caption.reindex(gallery).to_numpy())
        return [members.get(key, nothing) for key in caption.reindex(queries["target"])]
    targets = place.reindex(queries["target"]).to_numpy()
    if dataset.protocol.correct == "target":
        return [nothing if np.isnan(t) else np.array([t], dtype=np.int64) for t in targets]
    there = listed.assign(place=place.reindex(listed["target"]).to_numpy()).dropna(subset="place")
    members = {
        key: np.unique(group.to_numpy(np.int64))
        for key, group in there.groupby(["reference", "text"])["place"]
    }
    pairs = zip(queries["reference"], queries["text"], strict=True)
    return [members.get(key, nothing) for key in pairs]


def _listed_places(lists: "pd.Series[Any]", place: "pd.Series[int]", reference: Places) -> Places:
    """Q x M places of each query's listed images, -1 for its reference and what is not there."""
    known = place.to_dict()
    rows = [[known.get(image, -1) for image in images] for images in lists]
    width = max(map(len, rows), default=0)
    places = np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int64)
    places = places.reshape(len(rows), width)
    return np.where(places == reference[:, None], -1, places)


def _places(labels: NDArray[np.object_]) -> dict[object, Places]:
    """Where each label stands."""
    return {label: np.sort(i) for label, i in pd.Series(labels).groupby(labels).indices.items()}
