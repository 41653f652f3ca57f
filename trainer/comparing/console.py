"""What `cqr compare` prints: tables on stdout, the rest on stderr."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from cqr.progress import bar
from cqr.trainer.comparing.plan import Cell, Comparison
from cqr.trainer.comparing.run import How, OnLook
from cqr.trainer.comparing.words import (
    budget,
    difference,
    headings,
    plus_minus,
    published,
    published_columns,
    seeds_of,
)
from cqr.trainer.console import notes, print_table, results


def announce(comparison: Comparison, jobs: int, how: How) -> None:
    """Say what is about to be compared, on what."""
    dataset = comparison.rows[0].material.dataset
    every = comparison.cells()
    done = sum(cell.done for cell in every)
    _say(f"Data set    {dataset.name} ({dataset.root})")
    _say(f"Protocol    {dataset.protocol.sentence()}")
    for note in dict.fromkeys(n for row in comparison.rows for n in row.material.notes):
        _say(f"Note        {note}", "yellow")
    kept = f", of which {done} are done" if done else ""
    at_once = f"{jobs} rows, each with its seeds as one model," if how.batched else f"{jobs}"
    _say(
        f"Comparison  {comparison.folder}: {len(comparison.rows)} rows with "
        f"{comparison.seeds} seeds, {len(every)} runs{kept}; {at_once} at a time"
    )


def _say(line: str, style: str | None = None) -> None:
    notes.print(line, style=style, soft_wrap=True)


@contextlib.contextmanager
def comparing(comparison: Comparison) -> Iterator[OnLook]:
    """A bar of the epochs of all runs, and a line after each run."""
    every = comparison.cells()
    parts = (
        SpinnerColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with bar(*parts, console=notes, transient=True) as shown:
        epochs = comparison.rows[0].settings.epochs
        line = shown.add_task("", total=epochs * len(every))

        def on_look(running: list[Cell], ended: list[Cell]) -> None:
            for cell in ended:
                how, style = ("done", None) if cell.error is None else ("failed", "yellow")
                _say(f"{cell.row.label}, seed {cell.seed}: {how}", style)
            now = {cell.path for cell in running}
            trained = sum(
                epochs if cell.done else cell.epochs() if cell.path in now else 0 for cell in every
            )
            names = "; ".join(f"{cell.row.label}, seed {cell.seed}" for cell in running[:2])
            shown.update(line, completed=trained, description=names)

        yield on_look


def tables(content: dict[str, Any]) -> None:
    """Recall of each row, then how far each is from another."""
    results.print(
        f"{content['dataset']}: {content['queries']:,} queries, gallery {content['gallery']:,}"
    )
    results.print(budget(content), soft_wrap=True)
    print_table(_recall(content))
    if any(difference for row in content["rows"] for difference in row.get("against", {}).values()):
        print_table(_differences(content))
    for row in content["rows"]:
        for seed, error in row["errors"].items():
            why = f"{row['row']}, seed {seed} failed: {error}"
            results.print(why, style="yellow", markup=False, soft_wrap=True)


def _recall(content: dict[str, Any]) -> Table:
    measures = headings(content)
    table = Table()
    table.add_column("")
    said = published_columns(content)
    for name in (*measures, "parameters", "seconds", "seeds", *(f"{n} published" for n in said)):
        table.add_column(name, justify="right")
    for row in content["rows"]:
        if "recall" not in row:
            failed = ["-"] * (len(measures) + 2)
            table.add_row(row["row"], *failed, f"0 of {content['seeds']}", style="yellow")
            continue
        found = [*row["recall"].values(), *row["measures"].values()]
        table.add_row(
            row["row"],
            *(plus_minus(value) for value in found),
            f"{row['parameters']:,}",
            plus_minus(row["seconds"], 1),
            seeds_of(row, content),
            *published(row, said),
            style="" if len(row["seeds"]) == content["seeds"] else "yellow",
        )
    return table


def _differences(content: dict[str, Any]) -> Table:
    table = Table()
    for name in ("", "", "against"):
        table.add_column(name)
    for name in ("difference", "95 % interval", "not better in", "/ std over seeds"):
        table.add_column(name, justify="right")
    for row in content["rows"]:
        found = {k: d for k, d in row.get("against", {}).items() if d}
        for place, (k, d) in enumerate(found.items(), start=1):
            table.add_row(
                row["row"] if place == 1 else "",
                f"R@{k}",
                d["row"],
                *difference(d),
                end_section=place == len(found),
            )
    return table
