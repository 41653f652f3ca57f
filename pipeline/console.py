"""What the commands of stage one print: results on stdout, the rest on stderr."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from cqr.pipeline.assembly import Summary
from cqr.pipeline.detectors import Choice
from cqr.pipeline.exports import export
from cqr.pipeline.extract import Job, Watcher, extract
from cqr.pipeline.feature_file import open_features
from cqr.pipeline.imports import ImportJob, import_features
from cqr.pipeline.inspection import size
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
    print(f"Wrote {summary.out}: {summary.rows:,} pictures, {size(summary.bytes)}")
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


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _one_line(path: str) -> str:
    return path.replace("\n", "\\n")
