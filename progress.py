"""Progress bars: drawn where somebody watches, in a terminal or a notebook, and nowhere else."""

from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def bar(
    *columns: str | ProgressColumn, console: Console, visible: bool = True, **options: Any
) -> Progress:
    """A rich progress display that is silent in a pipe, even where colours are forced.

    A notebook draws it with ipywidgets; without them rich would warn at every step instead.
    """
    watched = visible and (_in_notebook(console) or console.file.isatty())
    return Progress(*columns, console=console, disable=not watched, **options)


def _in_notebook(console: Console) -> bool:
    return console.is_jupyter and find_spec("ipywidgets") is not None
