"""What a JSON file holds, against what it must: damage ends in a ValueError, never in another."""

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parsed(text: str | bytes) -> Any:
    """JSON as Python has it.

    Raises:
        ValueError: it is none, or nests deeper than this interpreter's stack goes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    except UnicodeDecodeError as error:  # which else holds the whole of it
        raise ValueError(f"its byte {error.start + 1} is not UTF-8") from None


def built(kind: type[T], content: Any) -> T:
    """A data class from a JSON object whose values are of the types that its fields say.

    Of fields it knows numbers (finite), text, booleans, None, literals, unions of these, and
    mappings and tuples of them; for a tuple, JSON has a list.

    Raises:
        ValueError: a field is missing, unknown, or of another type.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__} where an object should be")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for name, value in content.items():
        if name not in fields:
            raise ValueError(f"{str(name)[:50]!r} is not known")
        if not _fits(value, hints[name]):
            raise ValueError(f"{name} is {_short(value)}")
    for name, field in fields.items():
        if name not in content and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{name} is missing")
    given = {
        name: tuple(value) if get_origin(hints[name]) is tuple else value
        for name, value in content.items()
    }
    return kind(**given)


def _fits(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inside)
    if origin is Literal:
        return value in inside
    if origin is tuple:
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(one, inside[1]) for one in value.values())
    if hint is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return type(value) is (type(None) if hint is None else hint)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 50 else f"{shown[:50]}..."
