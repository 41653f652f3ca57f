"""The page about one evaluation: report.html."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cqr.report import cards, plots
from cqr.report.examples import of_evaluation
from cqr.report.page import READING, by_kind, paragraph, table, write_page
from cqr.trainer.evaluation.beside_start import beside_start
from cqr.trainer.evaluation.evaluate import Evaluation
from cqr.trainer.evaluation.published import cells, columns
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run

Published = Mapping[str, Mapping[str, Any]]


def write(
    evaluation: Evaluation,
    run: Run,
    material: Material,
    stored: Stored,
    *,
    examples: int = 12,
    published: Published | None = None,
) -> Path:
    """Write report.html and return its path.

    Args:
        evaluation: of the run on the material.
        stored: where its files are.
        examples: queries that are shown, see `examples.of_evaluation`.
        published: see `published.read`.
    """
    m = evaluation.metrics
    groups = of_evaluation(evaluation.queries, run, material, examples, m.get("pointing"))
    body = [
        f'<header class="top"><h1>{escape(m["run"])}</h1>',
        paragraph(f"{m['model']} on {m['dataset']}, {m['split']} split", "lead"),
        _tiles(m),
        "</header>",
        paragraph(
            f"{m['queries']:,} queries, a gallery of {m['gallery']:,} images, {m['k']} regions an "
            f"image, epoch chosen by: {m['select']}.  {m['protocol']}"
        ),
        paragraph(READING, "rule"),
        *_recall(m, published or {}),
        *_start(m),
        _measures(m),
        *_breakdown(m),
        *cards.section(groups, material.reader.file),
        *_training(run),
        "<h2>Settings</h2>",
        _settings(run),
        paragraph(f"cqr {m['cqr']}, torch {m['torch']}.", "rule"),
    ]
    write_page(stored.report, m["run"], body)
    return stored.report


def _settings(run: Run) -> str:
    """What decided the training, a row each."""
    settings = vars(run.settings)
    flat = {name: value for name, value in settings.items() if name != "options"}
    flat |= settings["options"]
    rows = [[name, "none" if value is None else str(value)] for name, value in flat.items()]
    return table(["", "value"], rows, kind="words")


def _tiles(metrics: Mapping[str, Any]) -> str:
    """Recall in large figures, its interval and chance below."""
    tiles = "".join(
        f'<div class="tile"><b>{value:.1f}</b><span>R@{k}, %</span>'
        f"<small>95 %: {_span(metrics['interval'][k])}</small>"
        f"<small>chance {metrics['chance'][k]:.2f}</small></div>"
        for k, value in metrics["recall"].items()
    )
    return f'<div class="tiles">{tiles}</div>'


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"


def _recall(metrics: Mapping[str, Any], published: Published) -> list[str]:
    """The run and chance; what was published stands in columns of its own, never among these."""
    names = [f"R@{k}" for k in metrics["recall"]]
    known = columns(published.values(), names)
    found, chance = ([f"{v:.2f}" for v in metrics[key].values()] for key in ("recall", "chance"))
    own = cells(published.get(metrics["model"], {}), known)
    others = {label: row for label, row in published.items() if label != metrics["model"]}
    nothing = [""] * len(names)
    rows = [
        [metrics["model"], f"{metrics['queries']:,}", *found, *own],
        ["95 % interval", "", *map(_span, metrics["interval"].values()), *([""] * len(known))],
        ["chance", "", *chance, *([""] * len(known))],
        *([label, "", *nothing, *cells(row, known)] for label, row in others.items()),
    ]
    head = ["", "queries", *names, *(f"{name} published" for name in known)]
    sources = "; ".join(f"{label}: {row['source']}" for label, row in published.items())
    return [
        "<h2>Recall</h2>",
        table(head, rows, classes=["model", "soft", "soft", *([""] * len(others))]),
        paragraph(f"Published: {sources}." if sources else "", "rule"),
    ]


def _start(metrics: Mapping[str, Any]) -> list[str]:
    """What the training started from, and whether what it learned is more."""
    if not metrics.get("start"):
        return []
    head, rows = beside_start(metrics)
    return [
        "<h2>What was learned</h2>",
        table(head, rows),
        paragraph("A paired bootstrap over the queries, 10,000 times.", "rule"),
    ]


def _measures(metrics: Mapping[str, Any]) -> str:
    """What the protocol asks for beside recall, if anything."""
    values = dict(metrics["measures"])
    if metrics["average"]:
        values[f"average of {' and '.join(metrics['average']['of'])}"] = metrics["average"]["value"]
    if found := metrics.get("pointing"):
        asked = f"of {found['queries']:,}: where "
        for way, said in (("attention", "its words attend to"), ("change", "its text changes")):
            if way in found:
                values[f"points at the object meant, {asked}{said} most"] = found[way]
        values["the same of a region at random"] = found["chance"]
    rows = [[name, f"{value:.2f}"] for name, value in values.items()]
    return table(["measure", "%"], rows) if rows else ""


def _breakdown(metrics: Mapping[str, Any]) -> list[str]:
    """A table for each column by which recall is reported."""
    columns = {
        column: [
            (value, part["queries"], [f"{recall:.2f}" for recall in part["recall"].values()])
            for value, part in parts.items()
        ]
        for column, parts in metrics["breakdown"].items()
    }
    return by_kind("By kind of query", [f"R@{k}" for k in metrics["recall"]], columns)


def _training(run: Run) -> list[str]:
    """Losses over the epochs, and recall on the queries that chose one."""
    history = run.history()
    if not any("loss" in line for line in history):
        return []
    where = "test" if run.settings.select == "test" else "held-out"
    trained = [line for line in history if "loss" in line]  # the start has none
    losses = [name for name in trained[0] if name == "loss" or name.endswith("_loss")]
    scored = [line for line in history if "recall" in line]
    drawn = {
        "training loss": (
            {name: [(line["epoch"], line[name]) for line in trained] for name in losses},
            None,
        ),
        f"recall on the {where} queries, %": (
            {
                f"R@{k}": [(line["epoch"], line["recall"][k]) for line in scored]
                for k in (scored[0]["recall"] if scored else ())
            },
            103,
        ),
    }
    figures = [
        plots.inline(plots.epochs(title, series, top), f"{title}, by epoch")
        for title, (series, top) in drawn.items()
        if series
    ]
    return ["<h2>Training</h2>", f'<div class="plots">{"".join(figures)}</div>']
