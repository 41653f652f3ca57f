"""The rows of a comparison as they are typed: a model, or a variant of one.

    lbf                                  a model as its paper has it
    lbf:fusion_depth=1,input=whole       with options of the model, settings of `cqr train`,
    lbf:features=artifacts/grid.h5       or another feature file of the same pictures
    no VEP=lbf:vep_depth=0               under a label of its own

Several are separated by commas.  An item NAME=VALUE without a colon belongs to the row before
it, so a label on a model without choices ends in a colon: `lbf,paper=tirg:`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from cqr.errors import UserError
from cqr.trainer.models import ALL
from cqr.trainer.options import choose, value_of
from cqr.trainer.training.settings import Settings, settle

BUDGET = ("epochs", "batch", "validation", "select")
"""Settings that are the same for every row."""

_TYPES = {name: kind for name, kind in get_type_hints(Settings).items() if name != "options"}
_ROW = re.compile(r"(?:(?P<label>[^=:,]+)=)?(?P<model>[^=:,]+)(?::(?P<given>.*))?")


@dataclass(frozen=True)
class Spec:
    """A row as it was typed.

    Attributes:
        label: its name in tables.
        model: a name in `models.ALL`.
        given: NAME=VALUE each; what comes later wins.
    """

    label: str
    model: str
    given: tuple[str, ...] = ()

    def varied(self, item: str) -> "Spec":
        """This row with one more choice, which its label says."""
        joint = "," if ":" in self.label else ":"
        return Spec(f"{self.label}{joint}{item}", self.model, (*self.given, item))

    @property
    def features(self) -> Path | None:
        """The feature file that was typed for this row."""
        files = [item.partition("=")[2] for item in self.given if item.startswith("features=")]
        return Path(files[-1]).expanduser() if files else None


def specs(typed: Sequence[str]) -> list[Spec]:
    """Every row of --models, in order.

    Raises:
        UserError: a model is unknown, a label comes twice, or it is none of the forms.
    """
    groups: list[list[str]] = []
    for item in (item.strip() for text in typed for item in text.split(",")):
        if groups and "=" in item and ":" not in item:
            groups[-1].append(item)
        else:
            groups.append([item])
    found = [_spec(",".join(group)) for group in groups]
    labels = [spec.label for spec in found]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"--models names the row {label!r} twice: give one of them a label")
    return found


def _spec(typed: str) -> Spec:
    match = _ROW.fullmatch(typed)
    if match is None:
        raise UserError(f"--models {typed!r} is not [LABEL=]MODEL[:NAME=VALUE,...]")
    _known(match["model"])
    given = match["given"].split(",") if match["given"] else []
    return Spec(match["label"] or typed.removesuffix(":"), match["model"], tuple(given))


def _known(model: str) -> None:
    if model not in ALL:
        raise UserError(f"no model is called {model!r}; there are {', '.join(ALL)}")


def vary(spec: Spec, typed: str) -> tuple[str, list[tuple[str, Spec]]]:
    """One of --vary, NAME=V1,V2,...: the name, and for each value the row that has it.

    Raises:
        UserError: it has no value, or one twice.
    """
    name, _, values = typed.partition("=")
    listed = [value.strip() for value in values.split(",")]
    if not name or not all(listed):
        raise UserError(f"--vary {typed} is not NAME=VALUE,VALUE,...")
    if len(set(listed)) < len(listed):
        raise UserError(f"--vary {typed} has a value twice")
    return name, [(value, spec.varied(f"{name}={value}")) for value in listed]


def settled(spec: Spec, shared: Sequence[str], recommended: Mapping[str, Any]) -> Settings:
    """What a row is trained with; the seed is 0.

    What a spec says wins over a shared MODEL.NAME=VALUE, that over a shared NAME=VALUE,
    and that over what the data set recommends.

    Args:
        shared: of --set, [MODEL.]NAME=VALUE each.

    Raises:
        UserError: a name or a value is unknown, or must be the same for every row.
    """
    given: dict[str, Any] = {"model": spec.model}
    options: list[str] = []
    for flag, item in [*_shared(shared, spec.model), *((_flag(spec), i) for i in spec.given)]:
        name, equals, value = item.partition("=")
        if name == "features" and equals:
            continue
        if name in ("seed", "model") or (name in BUDGET and flag != "--set"):
            why = "the rows are its values" if name == "model" else "it is the same for every row"
            how = {"seed": "--seeds N", "model": "--models"}.get(name, f"--set {name}={value}")
            raise UserError(f"{flag} {item}: {why}; give {how}")
        if name in _TYPES and equals:
            given[name] = value_of(f"{flag} {item}", _TYPES[name], value)
        elif flag == "--set":
            known = ", ".join(sorted(set(_TYPES) - {"model", "seed"}))
            raise UserError(f"--set {item} is not [MODEL.]NAME=VALUE with a NAME of: {known}")
        else:
            owner = f"{spec.model} (or a setting of `cqr train`)"
            choose(flag, owner, ALL[spec.model].config, {}, [item])  # says whose it is if wrong
            options.append(item)
    return settle(recommended, given, options)


def _flag(spec: Spec) -> str:
    return f"the row {spec.label}:"


def _shared(shared: Sequence[str], model: str) -> list[tuple[str, str]]:
    """Those of --set that are for this model, those for every model first."""
    every, own = [], []
    for item in shared:
        left, dot, _ = item.partition("=")[0].partition(".")
        if not dot:
            every.append(("--set", item))
            continue
        _known(left)
        if left == model:
            own.append((f"--set {left}.", item.removeprefix(f"{left}.")))
    return [*every, *own]
