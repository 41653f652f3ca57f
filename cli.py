"""The command line: registers the commands, and ends what a user caused with one sentence."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Any

import typer

from cqr.commands import pipeline, scenes, search, trainer
from cqr.errors import UserError

# Idle OpenMP threads that spin steal the processor from their neighbours.
# Set before anything imports torch, which the commands do when they run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find an image with an image and a sentence.",
)


def _register(function: Callable[..., None], group: str) -> None:
    """Make a command of a function; what a user caused ends as one sentence, not a traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print(
                "Interrupted: what was finished is kept; run the same command to go on.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None

    app.command(function.__name__.rstrip("_"), rich_help_panel=group)(run)  # `import_`, of Python


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cqr {version('cqr')}")
        raise typer.Exit


@app.callback()
def _cqr(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it and end."),
    ] = False,
) -> None: ...


_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "From pictures to regions": (
        pipeline.extract, pipeline.inspect, pipeline.import_, pipeline.export, scenes.scenes
    ),
    "From queries to a model": (
        trainer.data, trainer.train, trainer.evaluate, trainer.compare, trainer.submit
    ),
    "Find": (search.serve, search.search, search.index),
}  # fmt: skip

for _group, _functions in _GROUPS.items():
    for _function in _functions:
        _register(_function, _group)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    app()


if __name__ == "__main__":
    main()
