"""Values of a data set's JSON files, checked where they are read."""

from pathlib import Path
from typing import Any

from cqr.errors import UserError
from cqr.listing import is_utf8
from cqr.trainer.datasets.layout import json_of


def records_of(path: Path) -> list[dict[str, Any]]:
    """A JSON list of objects, one at least.  Raises UserError when it is not."""
    records: list[Any] = json_of(path, list)
    if not records:
        raise UserError(f"{path} holds no entries: download it again")
    for place, record in enumerate(records):
        if not isinstance(record, dict):
            raise _broken(path, place, f"is {_shown(record)}, not an object")
    return records


def names_of(path: Path) -> list[str]:
    """A JSON list of names.  Raises UserError when it is not."""
    names: list[Any] = json_of(path, list)
    for place, name in enumerate(names):
        if not (is_text(name) and name.strip()):
            raise _broken(path, place, f"is {_shown(name)}, not a name")
    return names


def name_in(record: dict[str, Any], key: str, path: Path, place: int) -> str:
    """The name under a key of a record.  Raises UserError when there is none."""
    value = text_in(record, key, path, place)
    if not value.strip():
        raise _broken(path, place, f"has an empty {key}")
    return value


def text_in(record: dict[str, Any], key: str, path: Path, place: int) -> str:
    """The text under a key of a record.  Raises UserError when there is none."""
    if key not in record:
        raise _broken(path, place, f"has no {key}")
    value = record[key]
    if not is_text(value):
        raise _broken(path, place, f"has the {key} {_shown(value)}, which is no text")
    return str(value)


def texts_in(
    record: dict[str, Any], key: str, number: int, path: Path, place: int
) -> tuple[str, ...]:
    """So many texts under a key of a record.  Raises UserError when they are not there."""
    value = record.get(key)
    if not (isinstance(value, list) and len(value) == number and all(map(is_text, value))):
        raise _broken(path, place, f"has the {key} {_shown(value)}, not {number} texts")
    return tuple(value)


def value_in(record: dict[str, Any], key: str, kind: type, path: Path, place: int) -> Any:
    """The value of a JSON type under a key; a truth value is no int.

    Raises:
        UserError: there is nothing, or something of another type.
    """
    if key not in record:
        raise _broken(path, place, f"has no {key}")
    if type(record[key]) is not kind:
        raise _broken(
            path, place, f"has the {key} {_shown(record[key])}, which is no {kind.__name__}"
        )
    return record[key]


def values_in(record: dict[str, Any], key: str, kind: type, path: Path, place: int) -> list[Any]:
    """The list of values of a JSON type under a key.  Raises UserError as `value_in` does."""
    values: list[Any] = value_in(record, key, list, path, place)
    odd = [value for value in values if type(value) is not kind or not _is_writable(value)]
    if odd:
        raise _broken(path, place, f"has in {key} {_shown(odd[0])}, which is no {kind.__name__}")
    return values


def _is_writable(value: Any) -> bool:
    return is_text(value) or not isinstance(value, str)


def is_text(value: Any) -> bool:
    """Whether a value of JSON is a text that a file can hold: no half of a surrogate pair."""
    return isinstance(value, str) and is_utf8(value)


def _broken(path: Path, place: int, what: str) -> UserError:
    return UserError(f"{path}: entry {place} (from 0) {what}: download it again")


def _shown(value: Any) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
