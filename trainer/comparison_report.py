"""The plots of a comparison and its page: one file, nothing loaded from elsewhere."""

from html import escape
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cqr.atomic import replacing
from cqr.trainer.comparison_console import (
    budget,
    difference,
    headings,
    plus_minus,
    published,
    published_columns,
    seeds_of,
)
from cqr.trainer.report import svg, write_page

_BLUE = "#3264c8"


def write(content: dict[str, Any], folder: Path) -> list[Path]:
    """comparison.html, rows.svg and NAME.svg for each variation of three numbers or more.

    Args:
        content: what comparison.json holds.

    Returns:
        What was written.
    """
    rows = [row for row in content["rows"] if "recall" in row]
    plots = {}
    if rows:
        plots["rows"] = svg(_bars(rows))
        plots |= {
            curve["name"]: svg(_curve(curve, rows))
            for curve in content["curves"]
            if _is_curve(curve)
        }
    paths = [folder / "comparison.html", *(folder / f"{name}.svg" for name in plots)]
    for path, text in zip(paths[1:], plots.values(), strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    size = f"{content['queries']:,} queries, a gallery of {content['gallery']:,} images."
    made_by = f"cqr {content['cqr']}, torch {content['torch']}, {content['machine']}."
    title = f"{folder.name}: {len(content['rows'])} rows on {content['dataset']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(content['protocol'])}</p>",
        f"<p>{size}  {escape(budget(content))}</p>",
        _recall(content),
        *plots.values(),
        "<h2>Differences</h2>",
        f"<p>{_READING.format(**content['bootstrap'])}</p>",
        _differences(content),
        _errors(content),
        "<h2>Rows</h2>",
        _choices(content),
        f"<p>{escape(made_by)}</p>",
    ]
    write_page(paths[0], title, body)
    return paths


_READING = (
    "Percentage points.  The interval is a paired bootstrap's, 95 % of {resamples:,} resamples "
    "of the queries, each query's hits averaged over the seeds first.  “Not better in” is the "
    "share of the resamples in which the row is not above the other.  The last column divides "
    "the mean difference over seeds by its standard deviation over seeds."
)


def _recall(content: dict[str, Any]) -> str:
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
    note = f"<p>Published: {escape('; '.join(sources))}.</p>" if sources else ""
    return _table(["", *names, "parameters", "seconds", "seeds", *said], rows) + note


def _differences(content: dict[str, Any]) -> str:
    rows = [
        [row["row"], f"R@{k}", found["row"], *difference(found)]
        for row in content["rows"]
        for k, found in row.get("against", {}).items()
        if found
    ]
    names = ["", "", "against", "difference", "95 % interval", "not better in", "/ std over seeds"]
    return _table(names, rows) if rows else "<p>There is only one row.</p>"


def _errors(content: dict[str, Any]) -> str:
    rows = [
        [f"{row['row']}, seed {seed}", error]
        for row in content["rows"]
        for seed, error in row["errors"].items()
    ]
    return "<h2>Failed</h2>" + _table(["", "why"], rows, "words") if rows else ""


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
    return _table(["", "model", "input", "K", "features", "options"], rows, "words")


def _table(head: list[str], rows: list[list[str]], kind: str = "numbers") -> str:
    """Cells are text: what is special in HTML is escaped here."""
    lines = ["".join(f"<th>{escape(name)}</th>" for name in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="{kind}">{body}</table>'


def _bars(rows: list[dict[str, Any]]) -> Figure:
    """Recall at the least k by row, with the standard deviation over seeds."""
    k = next(iter(rows[0]["recall"]))
    figure, axis = pyplot.subplots(figsize=(9, 1 + 0.36 * len(rows)), layout="constrained")
    found = [row["recall"][k] for row in rows]
    axis.barh(
        [row["row"] for row in rows],
        [value["mean"] for value in found],
        xerr=[value["std"] or 0 for value in found],
        color=_BLUE,
        error_kw={"ecolor": "#222222", "capsize": 3},
        height=0.62,
    )
    for place, value in enumerate(found):
        right = value["mean"] + (value["std"] or 0)
        axis.annotate(
            f"{value['mean']:.1f}", (right, place), (5, 0), textcoords="offset points", va="center"
        )
    axis.invert_yaxis()
    reach = max(value["mean"] + (value["std"] or 0) for value in found)
    axis.set(xlabel=f"R@{k}, %", xlim=(0, 1.1 * max(reach, 1)))
    _plain(axis, "x")
    axis.tick_params(axis="y", length=0)
    return figure


def _is_curve(curve: dict[str, Any]) -> bool:
    """Whether the values are numbers, and enough of them that a line says something."""
    try:
        return len([float(value) for value, _ in curve["points"]]) >= 3
    except ValueError:
        return False


def _curve(curve: dict[str, Any], rows: list[dict[str, Any]]) -> Figure:
    """Recall at every k over the values of what varies, with deviations over seeds."""
    by_label = {row["row"]: row for row in rows}
    points = sorted(
        (float(value), by_label[label]["recall"])
        for value, label in curve["points"]
        if label in by_label
    )
    figure, axis = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for k in reversed(rows[0]["recall"]):
        axis.errorbar(
            [value for value, _ in points],
            [recall[k]["mean"] for _, recall in points],
            [recall[k]["std"] or 0 for _, recall in points],
            label=f"R@{k}",
            marker="o",
            markersize=4,
            capsize=3,
        )
    axis.set(xlabel=curve["name"], ylabel="%", ylim=(0, 103))
    axis.set_xticks([value for value, _ in points], [f"{value:g}" for value, _ in points])
    _plain(axis, "y")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _plain(axis: Axes, grid: str) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, alpha=0.2)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
