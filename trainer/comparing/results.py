"""What a comparison found: a table of cells, and of each row the means and differences.

OUT/runs.parquet      a row a cell: row, model, seed, measures, seconds, parameters, error
OUT/comparison.json   a summary of each row
"""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.trainer.comparing.plan import FORMAT, VERSION, Cell, Comparison, Row
from cqr.trainer.comparing.rows import BUDGET
from cqr.trainer.ranking import bootstrap
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.runs import Run

Floats = NDArray[np.float64]
_ABOUT = {
    *("row", "model", "seed", "features", "input", "k", "settings", "run"),
    *("parameters", "seconds", "epochs", "device", "error"),
}


@dataclass(frozen=True)
class Results:
    """What the cells of a comparison found.

    Attributes:
        cells: a row a cell.
        hits: by k and label: Q, each query's hits averaged over the seeds that are done.
        weights: Q, how much each query counts in recall; they average 1.
    """

    comparison: Comparison
    cells: pd.DataFrame
    hits: dict[int, dict[str, Floats]]
    weights: Floats

    @property
    def ks(self) -> tuple[int, ...]:
        return self.comparison.rows[0].material.dataset.protocol.recall_at

    def of(self, label: str) -> pd.DataFrame:
        """The cells of a row that are done, by seed."""
        found = self.cells[(self.cells["row"] == label) & self.cells["error"].isna()]
        return found.set_index("seed")

    @property
    def measures(self) -> list[str]:
        """What the protocol asks for beside recall of the correct images."""
        known = {*_ABOUT, *(f"R@{k}" for k in self.ks)}
        return [str(name) for name in self.cells if name not in known]

    @property
    def done(self) -> list[Row]:
        """Rows of which at least one seed is done."""
        return [row for row in self.comparison.rows if len(self.of(row.label))]


def gather(comparison: Comparison) -> Results:
    """Read what the cells wrote.

    Raises:
        UserError: two of them were scored on other queries, or their files cannot be read.
    """
    protocol = comparison.rows[0].material.dataset.protocol
    ranks: dict[str, list[NDArray[np.int64]]] = {}
    queries: pd.DataFrame | None = None
    for cell in comparison.cells():
        if not cell.done:
            continue
        part = [] if protocol.part is None else [protocol.part]
        found = cell.evaluation.read_queries(["query_id", "rank", *part])
        queries = found if queries is None else queries
        if not queries["query_id"].equals(found["query_id"]):
            raise UserError(f"{cell.path} was scored on other queries than the rest: remove it")
        ranks.setdefault(cell.row.label, []).append(found["rank"].to_numpy(np.int64))
    hits = {
        k: {
            label: np.mean([(rank >= 1) & (rank <= k) for rank in of_seeds], axis=0)
            for label, of_seeds in ranks.items()
        }
        for k in protocol.recall_at
    }
    cells = pd.DataFrame([_cell(cell) for cell in comparison.cells()])
    weights = np.ones(0) if queries is None else bootstrap.weights_of(queries, protocol.part)
    return Results(comparison, cells, hits, weights)


def _from_here(path: Path) -> str:
    """A path below this folder, as it is typed here: a table that is passed on names no home."""
    here = Path.cwd().resolve()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _cell(cell: Cell) -> dict[str, Any]:
    row, settings = cell.row, cell.row.settings
    about: dict[str, Any] = {
        "row": row.label,
        "model": settings.model,
        "seed": cell.seed,
        "features": _from_here(row.features),
        "input": settings.input,
        "k": row.k,
        "settings": json.dumps(vars(settings) | {"seed": cell.seed}),
        "run": str(cell.path),
    }
    if not cell.done:
        return about | {"error": cell.error or "not done yet"}
    metrics = cell.evaluation.read_metrics()
    run = Run.load(cell.path)
    log = run.history()
    average = metrics["average"]
    return {
        **about,
        **{f"R@{k}": value for k, value in metrics["recall"].items()},
        **metrics["measures"],
        **({"average": average["value"]} if average else {}),
        "parameters": sum(p.numel() for p in run.model().parameters()),
        "seconds": sum(line.get("seconds", 0.0) for line in log),
        "epochs": sum(line["epoch"] > 0 for line in log),
        "device": ", ".join(sorted({line.get("device", "CPU") for line in log if line["epoch"]})),
        "error": None,
    }


def write(results: Results) -> dict[str, Any]:
    """Write runs.parquet and comparison.json, and return what the latter holds."""
    folder, content = results.comparison.folder, summary(results)
    with replacing(folder / "runs.parquet") as temporary:
        results.cells.to_parquet(temporary, index=False)
    with replacing(folder / "comparison.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return content


def summary(results: Results) -> dict[str, Any]:
    """What comparison.json holds: what is equal in all rows, what is not, and each row."""
    comparison = results.comparison
    first = comparison.rows[0]
    dataset, settings = first.material.dataset, vars(first.settings)
    differing = _differing(comparison)
    common = [*BUDGET, *(n for n in settings if n not in (*BUDGET, *differing, "seed", "options"))]
    source, _ = divide(dataset, first.settings)
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": dataset.name,
        "root": str(dataset.root),
        "protocol": dataset.protocol.sentence(),
        "options": dict(dataset.options),
        "queries": len(results.weights),
        "gallery": len(dataset.gallery(dataset.protocol.scored)),
        "training_queries": len(source),
        "seeds": comparison.seeds,
        "equal": {name: settings[name] for name in common},
        "differing": differing,
        "rows": [_row(results, row) for row in comparison.rows],
        "curves": [asdict(curve) for curve in comparison.curves],
        "bootstrap": {"resamples": bootstrap.RESAMPLES, "seed": 0},
        "precision": comparison.precision,
        "machine": _machine(results),
        "cqr": version("cqr"),
        "torch": torch.__version__,
    }


def _machine(results: Results) -> str:
    """This one, and what the trainings ran on beside its CPU."""
    cells = results.cells
    named = list(cells["device"].dropna()) if "device" in cells else []
    gpus = sorted({name for names in named for name in names.split(", ")} - {"CPU"})
    return ", ".join([platform.machine(), f"{os.cpu_count()} cores", *gpus])


def _differing(comparison: Comparison) -> list[str]:
    """Settings in which rows differ, among them model and features; a model's options are none."""
    first = comparison.rows[0]
    settings = [vars(row.settings) for row in comparison.rows]
    names = [
        n for n in settings[0] if n != "options" and any(s[n] != settings[0][n] for s in settings)
    ]
    more = any(row.features != first.features for row in comparison.rows)
    return [*names, *(["features"] if more else [])]


def _row(results: Results, row: Row) -> dict[str, Any]:
    cells = results.of(row.label)
    every = results.cells[results.cells["row"] == row.label]
    failed = every[every["error"].notna()]
    about = {
        "row": row.label,
        "model": row.settings.model,
        "options": row.settings.options,
        "features": _from_here(row.features),
        "input": row.settings.input,
        "k": row.k,
        "seeds": cells.index.tolist(),
        "errors": dict(zip(map(str, failed["seed"]), failed["error"], strict=True)),
    }
    if cells.empty:
        return about
    published = results.comparison.published.get(row.label)
    return about | {
        "published": published,
        "recall": {str(k): spread(cells[f"R@{k}"]) for k in results.ks},
        "measures": {name: spread(cells[name]) for name in results.measures},
        "parameters": int(cells["parameters"].iloc[0]),
        "seconds": spread(cells["seconds"]),
        "against": {str(k): _against(results, row, k) for k in results.ks},
    }


def spread(values: "pd.Series[float]") -> dict[str, float | None]:
    """Mean, and sample standard deviation; None for a single value."""
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "std": std}


def _against(results: Results, row: Row, k: int) -> dict[str, Any] | None:
    """A row's R@k less that of the best other row, or of the one that is named.

    In percentage points; None where there is no such row.
    """
    name = f"R@{k}"
    others = [other.label for other in results.done if other.label != row.label]
    if (against := results.comparison.against) is not None:
        others = [label for label in others if label == against]
    if not others:
        return None
    other = max(others, key=lambda label: results.of(label)[name].mean())
    hits = results.hits[k]
    found = bootstrap.paired(hits[row.label], hits[other], results.weights)
    one, two = results.of(row.label)[name].align(results.of(other)[name], join="inner")
    return {
        "row": other,
        "difference": 100 * found.mean,
        "low": 100 * found.low,
        "high": 100 * found.high,
        "not_better": found.not_better,
        "in_deviations": bootstrap.in_deviations(one.to_numpy(), two.to_numpy()),
    }


def check_whole(content: dict[str, Any], comparison: Comparison) -> None:
    """Raises UserError when a run has failed."""
    failed = [f"{r['row']}, seed {seed}" for r in content["rows"] for seed in r["errors"]]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(comparison.cells())} runs failed ({'; '.join(failed[:3])}"
            f"{'; ...' if len(failed) > 3 else ''}): the table says why, stderr.txt in each run's "
            "folder says more, and the same command tries them again"
        )
