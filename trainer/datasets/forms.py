"""The files that an evaluation server takes: their form, and what is checked before one is sent.

A data set's reader lists its forms as `SUBMISSION`; `submission.submit` fills them.
"""

import json
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd

from cqr.trainer.datasets.queries import Dataset

Answers = dict[str, list[Any]]
"""By query_id, the names of images, best first."""


class Layout(Protocol):
    """How a file holds the answers; `queries` are those that it is about, in order."""

    def write(self, queries: pd.DataFrame, answers: Answers) -> Any:
        """What json.dumps takes."""

    def read(self, queries: pd.DataFrame, content: Any) -> dict[str, Any]:
        """Answers by query_id, themselves unchecked.  Raises ValueError saying what is wrong."""


@dataclass(frozen=True)
class Keyed:
    """An object of lists under the queries' ids, and fixed entries beside them."""

    head: Mapping[str, str] = field(default_factory=dict)

    def write(self, queries: pd.DataFrame, answers: Answers) -> Any:
        return {**self.head, **{key: answers[key] for key in queries["query_id"]}}

    def read(self, queries: pd.DataFrame, content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise ValueError("is no JSON object")
        for key, value in self.head.items():
            if content.get(key) != value:
                raise ValueError(f"does not say {json.dumps(key)}: {json.dumps(value)}")
        return {key: value for key, value in content.items() if key not in self.head}


@dataclass(frozen=True)
class Entries:
    """The queries as they were given, in their order, each with its list under "ranking".

    Attributes:
        columns: of the queries, that make an entry.
    """

    columns: tuple[str, ...]

    def write(self, queries: pd.DataFrame, answers: Answers) -> Any:
        asked = queries[list(self.columns)].to_dict("records")
        return [
            {**entry, "ranking": answers[key]}
            for key, entry in zip(queries["query_id"], asked, strict=True)
        ]

    def read(self, queries: pd.DataFrame, content: Any) -> dict[str, Any]:
        asked = queries[list(self.columns)].to_dict("records")
        if not isinstance(content, list) or len(content) != len(asked):
            raise ValueError(f"is no JSON list of {len(asked):,} entries")
        for number, (entry, wanted) in enumerate(zip(content, asked, strict=True), start=1):
            if not isinstance(entry, dict) or any(entry.get(k) != v for k, v in wanted.items()):
                raise ValueError(f"has another entry {number} than the data set")
        rankings = [entry.get("ranking") for entry in content]
        return dict(zip(queries["query_id"], rankings, strict=True))


@dataclass(frozen=True)
class Form:
    """One file of a submission.

    Attributes:
        file: its name.
        depth: how many images a query names, exactly.
        layout: how the file holds them.
        among_members: only images of the query's image set are named.
        part: the value of the protocol's part whose queries it is about; None for all.
        largest: bytes that the server takes, if it says so.
        server: where it is sent; "" where there is none any more.
    """

    file: str
    depth: int
    layout: Layout
    among_members: bool = False
    part: str | None = None
    largest: int | None = None
    server: str = ""

    def of(self, dataset: Dataset, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of queries or images of a data set that the file is about."""
        return frame if self.part is None else frame[frame[str(dataset.protocol.part)] == self.part]


def check_text(form: Form, text: str, dataset: Dataset) -> None:
    """Check a file's content before it is sent.

    It must answer every query of the submitted split and no other, each with
    exactly the form's number of names, each of an image of the gallery, none
    twice, none the reference where the protocol removes it, and only members of
    the image set where the form says so.

    Args:
        dataset: as its reader made it, so that images without regions are known too.

    Raises:
        ValueError: it does not; says what is wrong, and of which query first.
    """
    size = len(text.encode())
    if form.largest is not None and size > form.largest:
        raise ValueError(f"has {size:,} bytes, more than the {form.largest:,} that are taken")
    split = str(dataset.protocol.submitted)
    queries = form.of(dataset, dataset.split(split))
    answers = form.layout.read(queries, content_of(text))
    missing = [key for key in queries["query_id"] if key not in answers]
    if missing:
        raise ValueError(
            f"lacks {len(missing):,} of {len(queries):,} {split} queries, first {missing[0]}"
        )
    unknown = sorted(answers.keys() - set(queries["query_id"]))
    if unknown:
        raise ValueError(
            f"answers {_of(unknown, 'query', 'queries')} not asked, first {unknown[0]}"
        )
    faults = _faults(form, dataset, queries, answers)
    if faults:
        first, fault = next(iter(faults.items()))
        wrong = _of(faults, "wrong answer", "wrong answers")
        raise ValueError(f"has {wrong}: query {first} {fault}")


def _of(things: Sized, one: str, more: str) -> str:
    return f"{len(things):,} {one if len(things) == 1 else more}"


def names_of(images: pd.DataFrame) -> dict[str, Any]:
    """The data set's own name of each image, by path."""
    return dict(zip(images["path"], images["name"], strict=True))


def content_of(text: str) -> Any:
    """What a file holds, as JSON.  Raises ValueError where it is none, or says a thing twice."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that is there twice, json would keep the last without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("has a key twice")
    return content


def _faults(
    form: Form, dataset: Dataset, queries: pd.DataFrame, answers: Mapping[str, Any]
) -> dict[str, str]:
    """What is wrong with an answer, by query."""
    name = names_of(form.of(dataset, dataset.images_of(str(dataset.protocol.submitted))))
    gallery = set(name.values())
    removed = dataset.protocol.remove_reference or form.among_members
    faults = {}
    for _, query in queries.iterrows():
        members = {name.get(path) for path in query["members"]} if form.among_members else gallery
        reference = name.get(query["reference"]) if removed else None
        fault = _fault(answers[query["query_id"]], form.depth, gallery, members, reference)
        if fault:
            faults[query["query_id"]] = fault
    return faults


def _fault(
    answer: Any, depth: int, gallery: set[Any], members: set[Any], reference: Any
) -> str | None:
    if not isinstance(answer, list) or len(answer) != depth:
        found = len(answer) if isinstance(answer, list) else "no list of"
        return f"names {found} images, not {depth}"
    for image in answer:
        # exact types: 1, 1.0 and true are one key of a set, and a list is none
        if type(image) not in (str, int) or image not in gallery:
            return f"names {json.dumps(image)}, which is no image of the gallery"
        if image not in members:
            return f"names {image}, which is not in its image set"
    if reference is not None and reference in answer:
        return f"names {reference}, its own reference"
    twice = [image for image in answer if answer.count(image) > 1]
    return f"names {twice[0]} twice" if twice else None
