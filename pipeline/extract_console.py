"""What `cqr extract` prints."""

import contextlib
from collections.abc import Mapping
from typing import Any

from cqr.pipeline.console import Bar, print_summary, say
from cqr.pipeline.detectors import Choice
from cqr.pipeline.extract import Job, Watcher, extract


class _Told(Watcher):
    """Prints the choice of detector, then draws a progress bar."""

    def __init__(self, bar: Bar):
        self.bar = bar

    def chosen(self, choice: Choice) -> None:
        say(self.bar.console, f"Detector: {choice.spec.name} ({choice.reason})")
        for line in choice.warning.splitlines() if choice.warning else ():
            say(self.bar.console, line, style="yellow")

    def loaded(self, identity: Mapping[str, Any]) -> None:
        if "licence" in identity:
            licence = identity["licence"] or "not stated by the model"
            say(self.bar.console, f"Model: {identity['config']}, licence: {licence}")

    def progress(self, done: int, total: int) -> None:
        self.bar.progress(done, total)


def run_extract(job: Job) -> None:
    """Extract, with a progress bar, and print what came of it."""
    with contextlib.ExitStack() as stack:
        summary = extract(job, _Told(Bar(stack)))
    times = summary.times
    print_summary(summary, "Computed", f", detect {times.detect:.1f} s")
