"""What the readers share: where to look, and how a file of text is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cqr.errors import UserError
from cqr.typed import parsed


@dataclass(frozen=True)
class Pictures:
    """The pictures that a data set may name.

    Attributes:
        root: the folder that the paths are relative to; it need not exist any more.
        paths: "/" separated, unique.
        features: the feature file that has their regions, if there is one.
    """

    root: Path
    paths: list[str]
    features: Path | None = None


def first_folder(
    pictures: Pictures, data: Path | None, fits: Callable[[Path], bool]
) -> Path | None:
    """The folder that fits: `data` itself; else the image folder, or the one above it."""
    places = [pictures.root, pictures.root.parent] if data is None else [data]
    return next((place for place in places if place.is_dir() and fits(place)), None)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text and their numbers from 1; without BOM, CRLF and blank lines.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    text = text_of(path)
    # not splitlines, which cuts at characters that a caption may hold
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            yield number, line


def text_of(path: Path) -> str:
    """A UTF-8 text without its BOM.  Raises UserError when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: the data set is not whole, download it again"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start + 1}): download it again, or save it as UTF-8"
        ) from error


def json_of(path: Path, kind: type = dict) -> Any:
    """A JSON file whose top is a `kind`.  Raises UserError when it is not."""
    try:
        content = parsed(text_of(path))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): download it again") from error
    if not isinstance(content, kind):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a {kind.__name__}: download it again"
        )
    return content


def check_ids(file: Path, queries: pd.DataFrame, key: str) -> None:
    """Raises UserError when two queries of a file have one id; `key` is what the file calls it."""
    again = queries["query_id"][queries["query_id"].duplicated()]
    if len(again):
        raise UserError(f"{file} has {key} {again.iloc[0]} twice: download it again")


def unlisted(queries: pd.DataFrame, column: str, images: pd.Series, where: str) -> list[str]:
    """What to say, if anything, about images that queries name and a list of images lacks.

    Args:
        column: of the queries that holds lists of images, beside reference and target.
        where: the images are listed.
    """
    columns = [queries["reference"], queries["target"], queries[column].explode()]
    named = pd.Series(pd.unique(pd.concat(columns).dropna()), dtype=object)
    lacking = named[~named.isin(images)].tolist()
    if not lacking:
        return []
    said = f"{len(lacking)} images that the queries name are not in {where}, first {lacking[0]}"
    return [f"{said}: no query can find them"]
