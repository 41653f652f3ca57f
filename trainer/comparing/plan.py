"""What is compared: rows, seeds and the folder that keeps them.

OUT/plan.json         what is compared; written first, and held against a later command
OUT/runs/ROW-SEED/    a cell: an ordinary run, with its evaluation
    stderr.txt        what its process said; of several seeds in one, in the first
    error.txt         why it failed, in a line
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.trainer.comparing import rows as typed
from cqr.trainer.datasets.queries import QUERY_COLUMNS
from cqr.trainer.evaluation.published import read as read_published
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.models import ALL
from cqr.trainer.training.material import Material, Wanted, collect
from cqr.trainer.training.runs import EVALUATION
from cqr.trainer.training.settings import Settings
from cqr.typed import parsed

FORMAT, VERSION = "cqr-comparison", 1
PLAN = "plan.json"
COMPARISONS = Path("artifacts/comparisons")


@dataclass(frozen=True)
class Row:
    """A model or variant: its name in tables, what it learns from, and its settings (seed 0)."""

    label: str
    material: Material
    settings: Settings

    @property
    def features(self) -> Path:
        return Path(self.material.reader.file.path).resolve()

    @property
    def k(self) -> int:
        """Regions of an image at most."""
        return 1 if self.settings.input == "whole" else self.material.reader.k

    def like(self, other: "Row") -> bool:
        """Whether both train the same."""
        settings = [replace(row.settings, k=row.k) for row in (self, other)]
        return self.features == other.features and settings[0] == settings[1]


@dataclass(frozen=True)
class Curve:
    """One of --vary: the row of each value.

    Attributes:
        name: of what varies.
        points: value as typed, label of its row.
    """

    name: str
    points: list[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A row with a seed."""

    row: Row
    seed: int
    path: Path

    @property
    def evaluation(self) -> Stored:
        return Stored(self.path / EVALUATION)

    @property
    def done(self) -> bool:
        return self.evaluation.metrics.exists()

    @property
    def error(self) -> str | None:
        """Why it failed; None if it did not, or was not tried."""
        file = self.path / "error.txt"
        return file.read_text(encoding="utf-8") if file.exists() else None

    def epochs(self) -> int:
        """How many are trained."""
        log = self.path / "log.jsonl"
        lines = log.read_bytes().splitlines() if log.exists() else []
        return int(json.loads(lines[-1])["epoch"]) if lines else 0


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        folder: where everything is kept.
        data: as given to find the data set.
        seeds: how many; they are 0, 1, ...
        against: label of the row that each is held against; None for the best other one.
        published: see `published.read`; of rows that are not here, too.
        precision: of every training, see `train.train`.
    """

    folder: Path
    rows: list[Row]
    seeds: int
    curves: list[Curve] = field(default_factory=list)
    against: str | None = None
    published: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    data: Path | None = None
    max_missing: float = 0.01
    precision: str | None = None

    def cells(self) -> list[Cell]:
        """Every row with seed 0, then every row with seed 1, ..."""
        return [
            Cell(row, seed, self.folder / "runs" / f"{_file_name(row.label)}-{seed}")
            for seed in range(self.seeds)
            for row in self.rows
        ]

    def plan(self) -> dict[str, Any]:
        """What plan.json holds: all that decides the results."""
        dataset = self.rows[0].material.dataset
        return {
            "format": FORMAT,
            "version": VERSION,
            "data set": dataset.name,
            "data": str(self.data.resolve()) if self.data else None,
            "protocol": dict(dataset.options),
            "seeds": self.seeds,
            "precision": self.precision,
            "features": {
                str(row.features): row.material.reader.file.header.set_id for row in self.rows
            },
            "rows": {
                row.label: {"features": str(row.features), **_flat(row.settings)}
                for row in self.rows
            },
        }


def _flat(settings: Settings) -> dict[str, Any]:
    values = asdict(settings)
    options = values.pop("options")
    del values["seed"]
    flat: dict[str, Any] = values | options
    return flat


_DEFAULTS = _flat(Settings())
"""What a plan was begun with that was written before there was such a setting; of a model's own
options it is the model's defaults."""


def _file_name(label: str) -> str:
    """A label as a part of a path; different ones stay different."""
    name = re.sub(r"[^\w.=-]+", "-", label).strip("-.")[:60]
    if name == label:
        return name
    return f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def prepare(
    features: Path,
    models: Sequence[str],
    *,
    seeds: int,
    wanted: Wanted,
    shared: Sequence[str] = (),
    vary: Sequence[str] = (),
    folder: Path | None = None,
    against: str | None = None,
    published: Path | None = None,
    max_missing: float = 0.01,
    precision: str | None = None,
) -> Comparison:
    """Everything that is to be compared, read and checked; nothing is written.

    Args:
        models: rows as typed, see `rows`.
        shared: [MODEL.]NAME=VALUE each, for all rows or those of a model.
        vary: NAME=V1,V2,... each: the first row with each value, one choice at a time.
        folder: where to keep it; None for artifacts/comparisons/NAME.
        against: label of the row that each is held against; None for the best other one.
        published: a file of published numbers, see `published.read`.
        precision: of every training, see `train.train`.

    Raises:
        UserError: what was typed makes no rows, a feature file or the data set cannot
            be used, or two files do not have the same queries.
    """
    specs = typed.specs(models)
    varied = [typed.vary(specs[0], item) for item in vary]
    materials: dict[Path, Material] = {}

    folder = folder or COMPARISONS / features.stem
    older = _unknown_to(folder)

    def row(spec: typed.Spec) -> Row:
        file = (spec.features or features).resolve()
        if file not in materials:
            materials[file] = collect(file, wanted, max_missing=max_missing)
            _check_same_queries(next(iter(materials.values())), materials[file])
        material = materials[file]
        recommended = {k: v for k, v in material.dataset.recommended.items() if k not in older}
        settings = typed.settled(spec, shared, recommended)
        return Row(spec.label, material.seen_by(settings), settings)

    rows, curves = [row(spec) for spec in specs], []
    for name, values in varied:
        points = []
        for value, spec in values:
            new = row(spec)
            known = next((old for old in rows if old.like(new)), None)
            if known is None:
                rows.append(new)
            points.append((value, (known or new).label))
        curves.append(Curve(name, points))
    labels = [row.label for row in rows]
    if against is not None and against not in labels:
        raise UserError(f"--against {against}: there is no such row; there are {', '.join(labels)}")
    said = read_published(published, rows[0].material.dataset.protocol.recalls)
    return Comparison(
        folder, rows, seeds, curves, against, said, wanted.data, max_missing, precision
    )


def _unknown_to(folder: Path) -> set[str]:
    """The settings that there were none of when the comparison in a folder was begun.

    It goes on without what is recommended of them since.
    """
    try:
        rows = parsed((folder / PLAN).read_bytes())["rows"].values()
        return set(_DEFAULTS) - {name for settings in rows for name in settings}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return set()  # there is none, or `begin` says what is wrong with it


def _check_same_queries(one: Material, two: Material) -> None:
    tables = [material.dataset.queries[QUERY_COLUMNS] for material in (one, two)]
    if not tables[0].reset_index(drop=True).equals(tables[1].reset_index(drop=True)):
        files = [material.reader.file.path for material in (one, two)]
        raise UserError(
            f"{files[0]} and {files[1]} do not have the same queries, so nothing learned from "
            "them can be compared: extract both from the same pictures"
        )


def begin(comparison: Comparison) -> None:
    """Write plan.json, or hold the comparison against the one that is there.

    More rows and more seeds are welcome; what is there stays as it is.

    Raises:
        UserError: it differs from what was begun, or cannot be read or written.
    """
    file, plan = comparison.folder / PLAN, comparison.plan()
    if file.exists():
        try:
            old = parsed(file.read_bytes())
            if (old["format"], old["version"]) != (FORMAT, VERSION):
                raise ValueError(f"{old['format']} version {old['version']}")
            found = _difference(old, plan)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise UserError(f"cannot read {file} ({error}): choose another --out") from error
        if found:
            raise UserError(
                f"{comparison.folder} was begun with {found}: give the same, or another --out"
            )
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(plan, indent=1), encoding="utf-8")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first thing that an old plan has otherwise, in words."""
    for name in ("data set", "data", "protocol", "precision"):
        if old.get(name) != new[name]:
            return f"{name} {old.get(name)}, not {new[name]}"
    if old["seeds"] > new["seeds"]:
        return f"{old['seeds']} seeds, not {new['seeds']}"
    for label, settings in old["rows"].items():
        if label not in new["rows"]:
            return f"the row {label}, which is not given now"
        now = new["rows"][label]
        model = ALL.get(settings.get("model"))
        absent = _DEFAULTS if model is None else {**_DEFAULTS, **asdict(model.config())}
        for name in {**settings, **now}:
            one, two = settings.get(name, absent.get(name)), now.get(name)
            if one != two:
                return f"{name}={one} in the row {label}, not {two}"
    for path, made in old["features"].items():
        if made != new["features"][path]:
            return f"{path} as it was before it was extracted again"
    return None
