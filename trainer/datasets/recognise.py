"""Which data set a folder or a table is, and reading it with the choices that were made."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.locate import located
from cqr.trainer.datasets.queries import Dataset
from cqr.trainer.datasets.readers import (
    Reader,
    attributes,
    circo,
    cirr,
    css,
    fashion200k,
    fashion_iq,
    mit_states,
    shoes,
    table,
)
from cqr.trainer.options import choose

READERS: tuple[Reader, ...] = (
    css, fashion200k, mit_states, fashion_iq, shoes, cirr, circo, table, attributes
)  # fmt: skip
"""A table stands back where another fits, and one of pictures where one of queries does."""

NAMES = tuple(reader.NAME for reader in READERS)


@dataclass(frozen=True)
class Found:
    """A data set that was recognised and not yet read."""

    reader: Reader
    root: Path

    @property
    def name(self) -> str:
        return self.reader.NAME

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn from; else it is for evaluation alone."""
        return self.reader is not circo


def find(pictures: Pictures, data: Path | None = None, name: str | None = None) -> Found:
    """The data set that goes with some pictures.

    Args:
        pictures: that have regions, or that lie in a folder.
        data: a folder or a table; None looks in the image folder, then in the
            folder above it, then, for a table, beside the feature file.
        name: of the data set; None finds out.

    Raises:
        UserError: nothing was recognised (the message lists what was looked
            for), or two data sets were.
    """
    if data is not None and not data.exists():
        raise UserError(f"--data {data} does not exist")
    if name is not None and name not in NAMES:
        raise UserError(f"--as {name} is no data set; there are {', '.join(NAMES)}")
    readers = [reader for reader in READERS if name in (None, reader.NAME)]
    found: list[Found] = []
    for reader in readers:
        if reader is attributes and found:
            continue
        if (root := reader.find(pictures, data)) is not None:
            found.append(Found(reader, root))
    if len(found) > 1:
        found = [one for one in found if one.reader is not table]
    if len(found) > 1:
        fitting = " and ".join(f"{one.name} ({one.reader.LAYOUT})" for one in found)
        raise UserError(f"{found[0].root} looks like {fitting}: choose one with --as NAME")
    if found:
        return found[0]
    where = data or pictures.root
    if name is not None:
        raise UserError(f"{where} holds no {name} data set, which is {readers[0].LAYOUT}")
    others = ", ".join(reader.NAME for reader in READERS if reader not in (table, attributes))
    raise UserError(
        f"{where} has no queries to learn from: write them beside it as {where.stem or 'NAME'}.csv "
        "with the columns reference,text,target, or a table path,caption of what each picture is "
        f"(no layout of {others} was found either; `cqr search --features FILE` asks "
        "without a training)"
    )


def read(
    found: Found,
    pictures: Pictures,
    base: Mapping[str, Any] | None = None,
    given: tuple[str, ...] = (),
) -> Dataset:
    """Read what was found, its images named as the pictures are.

    Args:
        base: choices made before, by name.
        given: "NAME=VALUE" each, as typed after --protocol.

    Raises:
        UserError: it is broken, or a choice is unknown.
    """
    reader = found.reader
    options = choose("--protocol", found.name, reader.Options, base or {}, list(given))
    dataset = reader.read(found.root, pictures, reader.Options(**options))
    return located(replace(dataset, options=options), pictures.paths)


def unusual(dataset: Dataset, own: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The choices of a data set's protocol that are not what a run is scored by unless one says so.

    Args:
        own: name of the run's own data set, of which `chosen` is what its training chose; of
            another data set, and of a choice that it did not know, the default counts.
    """
    reader = next(reader for reader in READERS if dataset.name == reader.NAME)
    usual = vars(reader.Options()) | (dict(chosen) if dataset.name == own else {})
    return {n: v for n, v in sorted(dataset.options.items()) if n in usual and usual[n] != v}
