"""A page about one evaluation, and what every page is made of: one file, nothing loaded."""

import io
import json
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cqr.atomic import replacing
from cqr.trainer.evaluate import Evaluation
from cqr.trainer.runs import Run

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block;
  overflow-x: auto; margin: 1rem 0 }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left }
.numbers td, .numbers th { white-space: nowrap; padding: .3rem .5rem }
tr.chance { color: var(--soft) }
tr.model { font-weight: 600 }
svg { max-width: 100%; height: auto; background: #fff; border-radius: 6px }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: 6px }
"""


def write(evaluation: Evaluation, run: Run, folder: Path) -> None:
    """report.html in `folder`."""
    m = evaluation.metrics
    summary = (
        f"{m['queries']:,} queries, a gallery of {m['gallery']:,} images, {m['k']} regions an "
        f"image, epoch chosen by: {escape(m['select'])}."
    )
    body = [
        f"<h1>{escape(m['run'])}</h1>",
        f"<p>{escape(m['protocol'])}</p>",
        f"<p>{summary}</p>",
        _recall(m),
        _measures(m),
        "<h2>Training</h2>",
        _curves(run),
        "<h2>Settings</h2>",
        f"<pre>{escape(json.dumps(vars(run.settings), indent=1))}</pre>",
    ]
    write_page(folder / "report.html", m["run"], body)


def write_page(path: Path, title: str, body: list[str]) -> None:
    """A page of HTML parts, in one style."""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{''.join(body)}</html>"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _recall(metrics: dict[str, Any]) -> str:
    ks = list(metrics["recall"])
    head = "".join(f"<th>R@{k}</th>" for k in ks)
    rows = [_row(metrics["model"], metrics, metrics["recall"], "model")]
    rows.append(_row("chance", metrics, metrics["chance"], "chance"))
    for column, parts in metrics["breakdown"].items():
        rows += [_row(f"{column} {value}", p, p["recall"], "") for value, p in parts.items()]
    return f"<table><tr><th></th><th>queries</th>{head}</tr>{''.join(rows)}</table>"


def _measures(metrics: dict[str, Any]) -> str:
    """What the protocol asks for beside recall, if anything."""
    values = dict(metrics["measures"])
    if metrics["average"]:
        values[f"average of {' and '.join(metrics['average']['of'])}"] = metrics["average"]["value"]
    rows = "".join(f"<tr><td>{escape(n)}</td><td>{v:.2f}</td></tr>" for n, v in values.items())
    return f"<table>{rows}</table>" if rows else ""


def _row(name: str, part: dict[str, Any], recall: dict[str, float], kind: str) -> str:
    cells = "".join(f"<td>{value:.2f}</td>" for value in recall.values())
    return f'<tr class="{kind}"><td>{escape(name)}</td><td>{part["queries"]:,}</td>{cells}</tr>'


def _curves(run: Run) -> str:
    """Loss, and recall on the queries that chose the epoch, over the epochs."""
    lines = run.history()
    epochs = [line["epoch"] for line in lines]
    scored = [line for line in lines if "recall" in line]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    few = "o" if len(epochs) < 10 else None  # a line of one point would not be seen
    left.plot(epochs, [line["loss"] for line in lines], color="#3264c8", marker=few)
    top = 1.05 * max(line["loss"] for line in lines)
    left.set(title="training loss", xlabel="epoch", ylim=(0, top))
    for k in scored[0]["recall"] if scored else ():
        right.plot(
            [line["epoch"] for line in scored],
            [line["recall"][k] for line in scored],
            label=f"R@{k}",
            marker=few,
        )
    if scored:
        right.legend(frameon=False)
    where = "test" if run.settings.select == "test" else "held-out"
    right.set(title=f"recall on the {where} queries, %", xlabel="epoch", ylim=(0, 102))
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
        axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an element of a page; it is closed."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]
