"""The page about a comparison, comparison.html, and its plots as files."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from statistics import mean
from typing import Any

from cqr.atomic import replacing
from cqr.report import cards, plots
from cqr.report.examples import first_done, of_comparison
from cqr.report.page import READING, by_kind, paragraph, table, write_page
from cqr.trainer.comparing.plan import Comparison
from cqr.trainer.comparing.words import (
    budget,
    difference,
    headings,
    plus_minus,
    published,
    published_columns,
    seeds_of,
    verdict,
)
from cqr.trainer.training.runs import Run


def write(content: dict[str, Any], comparison: Comparison, *, examples: int = 8) -> list[Path]:
    """comparison.html, rows.svg and NAME.svg for each variation of three numbers or more.

    Args:
        content: what comparison.json holds.
        examples: queries that are shown, see `examples.of_comparison`.

    Returns:
        What was written.

    Raises:
        UserError: the queries are not those that were scored.
    """
    folder = comparison.folder
    groups = of_comparison(comparison, examples)
    drawn = _plots([row for row in content["rows"] if "recall" in row], content["curves"])
    paths = [folder / "comparison.html", *(folder / f"{name}.svg" for name in drawn)]
    for path, svg in zip(paths[1:], drawn.values(), strict=True):
        with replacing(path) as temporary:
            temporary.write_text(plots.alone(svg), encoding="utf-8")
    title = f"{folder.name}: {len(content['rows'])} rows on {content['dataset']}"
    figures = "".join(plots.inline(svg, f"Recall by {name}") for name, svg in drawn.items())
    made_by = [f"cqr {content['cqr']}", f"torch {content['torch']}", content["machine"]]
    if content["precision"]:
        made_by.append(content["precision"])
    body = [
        f'<header class="top"><h1>{escape(title)}</h1></header>',
        paragraph(
            f"{content['queries']:,} queries, a gallery of {content['gallery']:,} images.  "
            f"{content['protocol']}"
        ),
        paragraph(verdict(content), "lead"),
        paragraph(budget(content)),
        "<h2>Recall</h2>",
        paragraph(READING, "rule"),
        *_recall(content),
        f'<div class="plots">{figures}</div>' if figures else "",
        "<h2>Differences</h2>",
        paragraph(_READING.format(**content["bootstrap"]), "rule"),
        _differences(content),
        _errors(content),
        *_breakdown(comparison),
        *_training(comparison),
        *cards.section(
            groups,
            comparison.rows[0].material.reader.file,
            "A row is shown by the first of its seeds that is done.",
        ),
        "<h2>Rows</h2>",
        _choices(content),
        paragraph(", ".join(made_by) + ".", "rule"),
    ]
    write_page(paths[0], title, body)
    return paths


def _plots(rows: list[dict[str, Any]], curves: list[dict[str, Any]]) -> dict[str, str]:
    """By the name of their file."""
    if not rows:
        return {}
    by_label = {row["row"]: row["recall"] for row in rows}
    drawn = {"rows": plots.bars(rows)}
    for one in curves:
        if points := _points(one["points"], by_label):
            drawn[one["name"]] = plots.curve(one["name"], points)
    return drawn


def _points(
    varied: list[tuple[str, str]], by_label: Mapping[str, dict[str, Any]]
) -> list[tuple[float, dict[str, Any]]]:
    """Values and recall; none if the values are no numbers, or too few for a line."""
    try:
        known = [(float(value), by_label[label]) for value, label in varied if label in by_label]
    except ValueError:
        return []
    return sorted(known, key=lambda point: point[0]) if len(known) >= 3 else []


_READING = (
    "Percentage points.  The interval is a paired bootstrap's, 95 % of {resamples:,} resamples "
    "of the queries, each query's hits averaged over the seeds first.  “Not better in” is the "
    "share of the resamples in which the row is not above the other.  The last column divides "
    "the mean difference over seeds by its standard deviation over seeds."
)


def _recall(content: dict[str, Any]) -> list[str]:
    names, columns = headings(content), published_columns(content)
    rows = []
    for row in content["rows"]:
        cells = [""] * (len(names) + 2)
        if "recall" in row:
            found = [*row["recall"].values(), *row["measures"].values()]
            cells = [plus_minus(value) for value in found]
            cells += [f"{row['parameters']:,}", plus_minus(row["seconds"], 1)]
        rows.append([row["row"], *cells, seeds_of(row, content), *published(row, columns)])
    said = [f"{name} published" for name in columns]
    sources = [
        f"{row['row']}: {row['published']['source']}"
        for row in content["rows"]
        if row.get("published")
    ]
    return [
        table(["", *names, "parameters", "seconds", "seeds", *said], rows),
        paragraph(f"Published: {'; '.join(sources)}." if sources else "", "rule"),
    ]


def _differences(content: dict[str, Any]) -> str:
    rows = [
        [row["row"], f"R@{k}", found["row"], *difference(found)]
        for row in content["rows"]
        for k, found in row.get("against", {}).items()
        if found
    ]
    names = ["", "", "against", "difference", "95 % interval", "not better in", "/ std over seeds"]
    return table(names, rows) if rows else paragraph("There is only one row.")


def _errors(content: dict[str, Any]) -> str:
    rows = [
        [f"{row['row']}, seed {seed}", error]
        for row in content["rows"]
        for seed, error in row["errors"].items()
    ]
    return "<h2>Failed</h2>" + table(["", "why"], rows, kind="words") if rows else ""


def _training(comparison: Comparison) -> list[str]:
    """R@k of the least k by epoch, on the queries that chose one, of each row's first seed."""
    k = str(min(comparison.rows[0].material.dataset.protocol.recall_at))
    series: dict[str, plots.Series] = {}
    for cell in first_done(comparison):
        history = Run.load(cell.path).history()
        line = [(one["epoch"], one["recall"][k]) for one in history if "recall" in one]
        if line:
            series[cell.row.label] = line
    if not series:
        return []
    where = "test" if comparison.rows[0].settings.select == "test" else "held-out"
    title = f"R@{k} on the {where} queries, %"
    drawn = plots.inline(plots.epochs(title, series), f"{title}, by epoch")
    return ["<h2>Training</h2>", f'<div class="plots">{drawn}</div>']


def _choices(content: dict[str, Any]) -> str:
    rows = [
        [
            row["row"],
            row["model"],
            row["input"],
            str(row["k"]),
            Path(row["features"]).name,
            ", ".join(f"{name}={value}" for name, value in row["options"].items()),
        ]
        for row in content["rows"]
    ]
    return table(["", "model", "input", "K", "features", "options"], rows, kind="words")


def _breakdown(comparison: Comparison) -> list[str]:
    """Of each column by which recall is reported, R@k of the least k, its mean over seeds."""
    k = str(min(comparison.rows[0].material.dataset.protocol.recall_at))
    labels = [row.label for row in comparison.rows]
    parts: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in comparison.cells():
        if not cell.done:
            continue
        metrics = cell.evaluation.read_metrics()
        for column, values in metrics["breakdown"].items():
            for value, part in values.items():
                known = parts.setdefault(column, {}).setdefault(
                    value, {"queries": part["queries"], **{label: [] for label in labels}}
                )
                known[cell.row.label].append(part["recall"][k])
    columns = {
        column: [
            (value, part["queries"], [f"{mean(part[n]):.2f}" if part[n] else "" for n in labels])
            for value, part in values.items()
        ]
        for column, values in parts.items()
    }
    return by_kind(f"R@{k} by kind of query", labels, columns)
