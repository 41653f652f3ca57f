"""What the commands of stage one print: results on stdout, the rest on stderr.

`cqr extract` has `extract_console`, since it loads torch, which the others need not.
"""

import contextlib
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from cqr.pipeline.assembly import Summary
from cqr.pipeline.exports import export
from cqr.pipeline.feature_file import open_features
from cqr.pipeline.imports import ImportJob, import_features
from cqr.pipeline.inspection import size
from cqr.progress import bar

SHOWN = 3
"""So many failures, or problems' namesakes, are printed; a file or a count stands for the rest."""


class Bar:
    """A progress bar that is drawn from the first call on, until the stack is closed."""

    def __init__(self, stack: contextlib.ExitStack):
        columns = (BarColumn(), MofNCompleteColumn(), "pictures", TimeRemainingColumn())
        self.console = Console(stderr=True)
        self.bar = bar(*columns, console=self.console, redirect_stdout=False)
        self.task = self.bar.add_task("")
        self.stack = stack

    def progress(self, done: int, total: int) -> None:
        if done == 0:
            self.stack.enter_context(self.bar)
        self.bar.update(self.task, completed=done, total=total)


def run_import(job: ImportJob) -> None:
    """Import, with a progress bar, and print what came of it."""
    with contextlib.ExitStack() as stack:
        bar = Bar(stack)
        summary = import_features(job, bar.progress, lambda text: say(bar.console, text))
    print_summary(summary, "Imported")


def run_export(path: Path, out: Path, format: str) -> None:
    """Export, with a progress bar, and say where to.

    Raises:
        UserError: the file is not whole, there is no such format, or no room.
    """
    file = open_features(path)
    with contextlib.ExitStack() as stack:
        export(file, out, format, Bar(stack).progress)
    print(f"Wrote {out}: {len(file.paths):,} pictures")


def print_summary(summary: Summary, done: str, detect: str = "") -> None:
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


def say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _one_line(path: str) -> str:
    return path.replace("\n", "\\n")
