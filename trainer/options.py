"""Choices that a model or a data set offers as a frozen dataclass, typed as NAME=VALUE."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from cqr.errors import UserError


def choose(
    flag: str, owner: str, config: Any, base: Mapping[str, Any], given: list[str]
) -> dict[str, Any]:
    """Every choice of `config`: its defaults, then what is in `base`, then what is given.

    Args:
        flag: that `given` was typed with, for messages.
        owner: whose choices they are, for messages.
        config: a dataclass of str, int, float, bool and Literal fields.
        base: by name; names that are no choice are passed over.
        given: "NAME=VALUE" each.

    Raises:
        UserError: no such choice, or a value that it does not take.
    """
    types = get_type_hints(config)
    known = {field.name for field in fields(config)}
    options = {**asdict(config()), **{k: v for k, v in base.items() if k in known}}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals or key not in known:
            names = ", ".join(sorted(known)) or "it has none"
            raise UserError(f"{flag} {item} is not NAME=VALUE with a NAME of {owner}: {names}")
        options[key] = value_of(f"{flag} {item}", types[key], text)
    return options


def value_of(item: str, kind: Any, text: str) -> Any:
    """A typed value as its field's type; one that may be None cannot be typed as None.

    Args:
        item: what was typed, for messages.

    Raises:
        UserError: the text is none of the type.
    """
    choices = get_args(kind)
    if NoneType in choices:
        return value_of(item, choices[0], text)
    if choices:
        if text not in choices:
            raise UserError(f"{item}: choose one of {', '.join(choices)}")
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{item}: choose true or false")
        return text == "true"
    try:
        value = kind(text)
    except ValueError as error:
        raise UserError(f"{item}: {text!r} is not {kind.__name__}") from error
    if kind is float and not math.isfinite(value):
        raise UserError(f"{item} is not a finite number")
    return value
