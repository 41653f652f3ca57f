"""Bars are for eyes: nothing of them goes into a pipe, whatever the environment forces."""

import io

import pytest
from rich.console import Console
from rich.progress import BarColumn

from cqr.progress import bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("file", "visible", "drawn"),
    [(io.StringIO(), True, False), (Terminal(), True, True), (Terminal(), False, False)],
)
def test_a_bar_is_drawn_on_a_terminal_alone(file, visible, drawn):
    console = Console(file=file, force_terminal=True, width=60)
    with bar("reading", BarColumn(), console=console, visible=visible) as shown:
        task = shown.add_task("", total=3)
        for done in range(3):
            shown.update(task, completed=done + 1)
    assert ("reading" in file.getvalue()) is drawn
