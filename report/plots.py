"""Plots as SVG: see-through, and inked in the colour of the text around them."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"
"""Stands for the colour of the text around a plot."""

COLORS = ("#3b78d8", "#e0713a", "#2a9d72", "#b0569f", "#c9952b", "#7a83d6")
"""Told apart by colour-blind readers too, on white as on black."""

MOST_INSIDE = 6
"""Lines that a legend within the plot may name; one of more would hide them."""

Series = list[tuple[int, float]]
"""Epoch, from 1, and value."""

_STYLE: Any = {
    "svg.fonttype": "none",  # the page's own letters
    "font.size": 11,
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    ),
}


def inline(svg: str, label: str) -> str:
    """A plot as an element of a page."""
    drawn = svg.replace(INK, "currentColor")
    return f'<figure class="plot" role="img" aria-label="{escape(label)}">{drawn}</figure>'


def alone(svg: str) -> str:
    """A plot as a file of its own: on white."""
    return svg.replace(INK, "#222222").replace("<svg ", '<svg style="background:#fff" ', 1)


def epochs(title: str, series: Mapping[str, Series], top: float | None = None) -> str:
    """Lines over the epochs.

    Args:
        series: by label; none of them empty.
        top: of the axis; None leaves some room above the largest value.
    """
    every = [epoch for line in series.values() for epoch, _ in line]
    most = max(value for line in series.values() for _, value in line)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained")
        axis = figure.subplots()
        for label, line in series.items():
            few = "o" if len(line) < 10 else None  # a line of one point would not be seen
            axis.plot(*zip(*line, strict=True), label=_plain(label), marker=few, markersize=4)
        axis.set(title=title, xlabel="epoch", ylim=(0, top or 1.05 * most or 1))
        axis.set_xlim(min(every) - 0.5, max(every) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.2, color=INK)
        if len(series) > MOST_INSIDE:
            columns = 2 if max(map(len, series)) < 24 else 1
            figure.set_figheight(3.3 + 0.24 * math.ceil(len(series) / columns))
            figure.legend(loc="outside lower center", ncols=columns)
        elif len(series) > 1:
            axis.legend()
        return _svg(figure, title)


def bars(rows: list[dict[str, Any]]) -> str:
    """Recall at the least k by row of a comparison, with the standard deviation over seeds."""
    k = next(iter(rows[0]["recall"]))
    found = [row["recall"][k] for row in rows]
    reach = [value["mean"] + (value["std"] or 0) for value in found]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 0.8 + 0.36 * len(rows)), layout="constrained")
        axis = figure.subplots()
        axis.barh(
            [_plain(row["row"]) for row in rows],
            [value["mean"] for value in found],
            xerr=[value["std"] or 0 for value in found],
            error_kw={"ecolor": INK, "capsize": 3},
            height=0.62,
        )
        for place, (value, right) in enumerate(zip(found, reach, strict=True)):
            text = f"{value['mean']:.1f}"
            axis.annotate(text, (right, place), (5, 0), textcoords="offset points", va="center")
        axis.invert_yaxis()
        axis.set(xlabel=f"R@{k}, %", xlim=(0, 1.12 * max(*reach, 1)))
        axis.grid(axis="x", alpha=0.2, color=INK)
        axis.tick_params(axis="y", length=0)
        return _svg(figure, "rows")


def curve(name: str, points: Sequence[tuple[float, dict[str, Any]]]) -> str:
    """Recall at every k over the values of what varies, with deviations over seeds."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.4), layout="constrained")
        axis = figure.subplots()
        values = [value for value, _ in points]
        for k in reversed(points[0][1]):
            axis.errorbar(
                values,
                [recall[k]["mean"] for _, recall in points],
                [recall[k]["std"] or 0 for _, recall in points],
                label=f"R@{k}",
                marker="o",
                markersize=4,
                capsize=3,
            )
        axis.set(xlabel=_plain(name), ylabel="%", ylim=(0, 103))
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.grid(axis="y", alpha=0.2, color=INK)
        figure.legend(loc="outside right center")
        return _svg(figure, f"curve {name}")


def _plain(text: str) -> str:
    """Without what matplotlib would read as a formula."""
    return text.replace("$", r"\$")


def _svg(figure: Figure, name: str) -> str:
    """Without what is not drawn: a description, and the ids that nothing refers to.

    Args:
        name: no two plots of a page have the same, so that their ids differ.
    """
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
