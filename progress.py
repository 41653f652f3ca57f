"""Progress bars: drawn where somebody watches, in a terminal or a notebook, and nowhere else."""

from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def bar(
    *columns: str | ProgressColumn, console: Console, visible: bool = True, **options: Any
) -> Progress:
    """A rich progress display that is silent in a pipe, even where colours are forced."""
    watched = visible and (console.is_jupyter or console.file.isatty())
    return Progress(*columns, console=console, disable=not watched, **options)
