"""Search on a Milvus server, or in the file of its embedded form, milvus-lite.

    milvus://HOST:PORT/COLLECTION       milvus://PLACE.db/COLLECTION

A collection has a row for each picture: its path, its vector, the columns of the metadata.
It belongs to one gallery; `cqr index` brings it up to date, `cqr search` refuses it if it is
not.  As with every index, the gallery's own vectors decide the order and the scores.
"""

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.search.gallery import Gallery
from cqr.search.indexes import Progress, Rows, Scores
from cqr.search.indexes.exact import best
from cqr.search.metadata import expression

MOST = 16_384
"""Results that Milvus gives at most."""

PROPOSED = 3
"""Candidates for each result, among which the gallery's own vectors choose."""

SOURCE, CURRENT = "cqr.source", "cqr.gallery"
"""Properties of a collection: what decides its vectors, and the gallery that it holds."""

BLOCK = 1000
TEXT_BYTES = 65_535
_ADDRESS = re.compile(r"milvus://(?P<place>.+)/(?P<collection>[A-Za-z_][A-Za-z0-9_]*)")


class Milvus:
    """See `Index`.

    Raises:
        UserError: on construction, if pymilvus is not installed, the server cannot be reached,
            or the collection is not this gallery's.
    """

    def __init__(self, gallery: Gallery, name: str) -> None:
        self.name = name
        self._gallery = gallery
        self._client, self._collection = _connect(name)
        with _told(name):
            there = self._client.has_collection(self._collection)
            held = _properties(self._client, self._collection).get(CURRENT) if there else None
            if there:
                self._client.load_collection(self._collection)
        if held != gallery.id:
            raise UserError(
                f"{name} does not hold {gallery.folder} as it is now: run "
                f"`cqr index --index {name}`"
            )

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Sequence[Rows],
        where: str | None = None,
    ) -> tuple[Rows, Scores]:
        least = k + max(map(len, exclude), default=0)
        if least > MOST:
            raise UserError(f"--k {k}: Milvus gives at most {MOST:,} results; take --index exact")
        met = "" if where is None else expression(where, list(self._gallery.metadata.columns))
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        with _told(self.name):
            answers = self._client.search(
                self._collection,
                data=list(queries),
                anns_field="vector",
                limit=min(least + (PROPOSED - 1) * k, MOST),
                filter=met,
                search_params={"metric_type": "IP"},
                output_fields=["path"],
            )
        for number, answer in enumerate(answers):
            known = [self._gallery.rows[hit["path"]] for hit in answer]
            proposed = np.setdiff1d(np.array(known, np.int64), exclude[number])
            found, reached = best(queries[number], self._gallery.vectors, proposed, k)
            rows[number, : len(found)], scores[number, : len(found)] = found, reached
        return rows, scores


def build(gallery: Gallery, name: str, progress: Progress) -> None:
    """Bring a collection up to date, or make it; rows that it has already are kept.

    With metadata every row is sent anew, since its values may have changed.

    Raises:
        UserError: pymilvus is not installed, the server cannot be reached, or the collection is
            not one that this package made.
    """
    client, collection = _connect(name)
    with _told(name):
        if client.has_collection(collection):
            _make_room(client, collection, gallery, name)
        if not client.has_collection(collection):
            _create(client, collection, gallery)
        client.load_collection(collection)
        # Until it is whole again it is no gallery's.
        client.alter_collection_properties(collection, properties={CURRENT: ""})
        held = _paths(client, collection)
        gone = sorted(held - gallery.rows.keys())
        for first in range(0, len(gone), BLOCK):
            client.delete(collection, ids=gone[first : first + BLOCK])
        every = len(gallery.metadata.columns) > 0
        todo = [row for path, row in gallery.rows.items() if every or path not in held]
        for first in range(0, len(todo), BLOCK):
            progress(first, len(todo))
            client.upsert(collection, _rows(gallery, todo[first : first + BLOCK]))
        progress(len(todo), len(todo))
        client.flush(collection)
        client.alter_collection_properties(collection, properties={CURRENT: gallery.id})
        client.close()


def _make_room(client: Any, collection: str, gallery: Gallery, name: str) -> None:
    """Drop a collection that is ours, but of other vectors or other columns."""
    source = _properties(client, collection).get(SOURCE)
    if source is None:
        raise UserError(f"{name} was not made by cqr: name another collection")
    described = client.describe_collection(collection)["fields"]
    fields = {field["name"]: field["type"] for field in described}
    if source != _source(gallery) or fields != _fields(gallery):
        client.drop_collection(collection)


def _create(client: Any, collection: str, gallery: Gallery) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    for name, kind in _fields(gallery).items():
        text = {"max_length": TEXT_BYTES} if kind == DataType.VARCHAR else {}
        if name == "path":
            schema.add_field(name, kind, is_primary=True, **text)
        elif name == "vector":
            schema.add_field(name, kind, dim=gallery.vectors.shape[1])
        else:
            schema.add_field(name, kind, nullable=True, **text)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
    client.create_collection(
        collection,
        schema=schema,
        index_params=index,
        consistency_level="Strong",
        properties={SOURCE: _source(gallery)},
    )


def _fields(gallery: Gallery) -> dict[str, Any]:
    """Names and types of a collection's fields."""
    from pymilvus import DataType

    def kind(column: "pd.Series[Any]") -> DataType:
        if pd.api.types.is_bool_dtype(column):
            return DataType.BOOL
        if pd.api.types.is_integer_dtype(column):
            return DataType.INT64
        return DataType.DOUBLE if pd.api.types.is_float_dtype(column) else DataType.VARCHAR

    columns = {str(name): kind(column) for name, column in gallery.metadata.items()}
    return {"path": DataType.VARCHAR, "vector": DataType.FLOAT_VECTOR, **columns}


def _rows(gallery: Gallery, rows: list[int]) -> list[dict[str, Any]]:
    """As Milvus takes them: None where a value is not known."""
    some = gallery.table.iloc[rows].astype(object)
    listed = some.where(some.notna(), None).to_numpy()
    names = [*map(str, some.columns), "vector"]
    vectors = gallery.vectors[rows].astype(np.float32)
    return [
        dict(zip(names, [*row, vector], strict=True))
        for row, vector in zip(listed, vectors, strict=True)
    ]


def _paths(client: Any, collection: str) -> set[str]:
    found: set[str] = set()
    batches = client.query_iterator(collection, batch_size=BLOCK, output_fields=["path"])
    while batch := batches.next():
        found.update(row["path"] for row in batch)
    batches.close()
    return found


def _source(gallery: Gallery) -> str:
    return json.dumps(gallery.source, sort_keys=True)


def _properties(client: Any, collection: str) -> dict[str, str]:
    return dict(client.describe_collection(collection).get("properties") or {})


def _connect(name: str) -> tuple[Any, str]:
    match = _ADDRESS.fullmatch(name)
    if match is None:
        raise UserError(f"--index {name} is not milvus://HOST:PORT/COLLECTION")
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise UserError(
            "a Milvus index needs pymilvus: pip install 'cqr[milvus]', or take --index exact"
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it logs, `_told` says
    place = match["place"]
    with _told(name):
        return MilvusClient(place if place.endswith(".db") else f"http://{place}"), match[
            "collection"
        ]


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """What Milvus says went wrong, as one sentence."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        reason = " ".join(str(error.message or error).split())[:200]
        raise UserError(
            f"{name} cannot be used ({reason}): check that Milvus runs there"
        ) from error
