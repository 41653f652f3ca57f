"""What the commands of stage one print: results on stdout, the rest on stderr."""

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table

from cqr.errors import UserError
from cqr.pipeline.assembly import Summary
from cqr.pipeline.detectors import Choice
from cqr.pipeline.examine import Findings, examine
from cqr.pipeline.exports import export
from cqr.pipeline.extract import Job, Watcher, extract
from cqr.pipeline.feature_file import FeatureFile, open_features
from cqr.pipeline.imports import ImportJob, import_features
from cqr.pipeline.show import draw
from cqr.progress import bar

SHOWN = 3
"""So many failures, or problems' namesakes, are printed; a file or a count stands for the rest."""


class _Bar(Watcher):
    """Prints the choice of detector, then draws a progress bar, until the stack is closed."""

    def __init__(self, stack: contextlib.ExitStack):
        columns = (BarColumn(), MofNCompleteColumn(), "pictures", TimeRemainingColumn())
        self.console = Console(stderr=True)
        self.bar = bar(*columns, console=self.console, redirect_stdout=False)
        self.task = self.bar.add_task("")
        self.stack = stack

    def chosen(self, choice: Choice) -> None:
        _say(self.console, f"Detector: {choice.spec.name} ({choice.reason})")
        for line in choice.warning.splitlines() if choice.warning else ():
            _say(self.console, line, style="yellow")

    def loaded(self, identity: Mapping[str, Any]) -> None:
        if "licence" in identity:
            licence = identity["licence"] or "not stated by the model"
            _say(self.console, f"Model: {identity['config']}, licence: {licence}")

    def progress(self, done: int, total: int) -> None:
        if done == 0:
            self.stack.enter_context(self.bar)
        self.bar.update(self.task, completed=done, total=total)


def run_extract(job: Job) -> None:
    """Extract, with a progress bar, and print what came of it."""
    with contextlib.ExitStack() as stack:
        summary = extract(job, _Bar(stack))
    times = summary.times
    _print_summary(summary, "Computed", f", detect {times.detect:.1f} s")


def run_import(job: ImportJob) -> None:
    """Import, with a progress bar, and print what came of it."""
    with contextlib.ExitStack() as stack:
        bar = _Bar(stack)
        summary = import_features(job, bar.progress, lambda text: _say(bar.console, text))
    _print_summary(summary, "Imported")


def run_export(path: Path, out: Path, format: str) -> None:
    """Export, with a progress bar, and say where to.

    Raises:
        UserError: the file is not whole, there is no such format, or no room.
    """
    file = open_features(path)
    with contextlib.ExitStack() as stack:
        export(file, out, format, _Bar(stack).progress)
    print(f"Wrote {out}: {len(file.paths):,} pictures")


def _print_summary(summary: Summary, done: str, detect: str = "") -> None:
    print(f"Wrote {summary.out}: {summary.rows:,} pictures, {_size(summary.bytes)}")
    print(f"{done} {summary.computed:,} pictures in this run, kept {summary.kept:,}")
    times = summary.times
    print(f"Time: read {times.read:.1f} s{detect}, write {times.write:.1f} s")
    if summary.failures:
        print(f"Failed: {len(summary.failures):,}, listed in {summary.failures_file}")
        for failure in summary.failures[:SHOWN]:
            print(f"  {_one_line(failure.path)} {failure.reason}")
    if summary.gone:
        print(
            f"Gone: {len(summary.gone):,} pictures that were there before, first"
            f" {_one_line(summary.gone[0])}; their rows stay until --overwrite"
        )
    for note in summary.notes:
        print(_one_line(note))


def run_inspect(path: Path, show: int, save: Path | None) -> None:
    """Print all that a feature file says of itself, then check it; draw boxes if asked.

    Raises:
        UserError: something is wrong with the file; what, is printed before.
    """
    file = open_features(path)
    findings = examine(file)
    Console().print(_table(file, findings))
    if show:
        save = save or path.with_suffix(".boxes.png")
        draw(file, show, save)
        print(f"Drew {min(show, len(file.paths))} pictures: {save}")
    for problem in findings.problems[:20]:
        print(f"Wrong: {problem}")
    if findings.problems:
        number = len(findings.problems)
        raise UserError(
            f"{path} has {number} fault{'s' if number > 1 else ''}, the first:"
            f" {findings.problems[0]}; make it again with: {file.header.command}"
            f" --out {shlex.quote(str(path))} --overwrite"
        )
    print(
        "All is well: checksums, shapes, finite values, boxes inside pictures, counts, every shard"
        " there"
    )


def _table(file: FeatureFile, findings: Findings) -> Table:
    header = file.header
    table = Table(show_header=False, title=str(file.path), title_justify="left", min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    mean = findings.regions / max(1, findings.pictures)
    disk = file.path.stat().st_size + sum(shard.path.stat().st_size for shard in file.shards)
    sizes = file.sizes
    failed = file.path.with_suffix(".failures.csv")
    facts = {
        "pictures": f"{findings.pictures:,} below {header.image_root}",
        "sizes": f"{_span(sizes[:, 0])} wide, {_span(sizes[:, 1])} high",
        "K": f"{header.k}; {findings.full:,} pictures have all, {mean:.1f} on average",
        "D": f"{header.dim}; largest value {findings.largest:.4g}",
        "extras": ", ".join(header.extras),
        "scores": f"{findings.score[0]:.3f} to {findings.score[1]:.3f}",
        "detector": "\n".join(_flat(header.detector)),
        "warning": header.warning,
        "made": f"{header.created} by cqr {header.made_by}",
        "command": header.command,
        "failures": f"listed in {failed}" if failed.exists() else "none",
        "on disk": f"{len(file.shards):,} shards, {_size(disk)}",
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    return table


def _flat(identity: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A nested mapping as lines "outer.inner value"."""
    for key, value in identity.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} {value if isinstance(value, str) else json.dumps(value)}"


def _span(values: NDArray[np.int32]) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _one_line(path: str) -> str:
    return path.replace("\n", "\\n")
