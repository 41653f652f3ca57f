"""The command line: registers the commands, and ends what a user caused with one sentence."""

import atexit
import functools
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from cqr.commands import pipeline, scenes, search, trainer
from cqr.errors import UserError, refused, scarcity

# Idle OpenMP threads that spin steal the processor from their neighbours.
# Set before anything imports torch, which the commands do when they run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _FlagsTakeNothing:
    """Help that shows no kind of value, such as <bool>, behind a flag."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class _Command(_FlagsTakeNothing, TyperCommand):
    pass


class _Group(_FlagsTakeNothing, TyperGroup):
    pass


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find an image with an image and a sentence.",
)


def _in_sentences(function: Callable[..., None]) -> Callable[..., None]:
    """A function that ends with a sentence, not a traceback, on all that a user can cause."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _say_interrupted()
            raise typer.Exit(130) from None
        except Exception as error:
            if _asked_to_stop:  # an import that is interrupted fails in any way
                _say_interrupted()
                raise typer.Exit(130) from None
            why = scarcity(error) or refused(error)
            if why is None:
                raise
            print(f"Error: {why}", file=sys.stderr)
            raise typer.Exit(1) from None

    return run


def _register(function: Callable[..., None], group: str) -> None:
    """Make a command of a function."""
    name = function.__name__.rstrip("_")  # `import_`: a word of Python
    app.command(name, cls=_Command, rich_help_panel=group)(_in_sentences(function))


def _print_version(wanted: bool) -> None:
    if wanted:
        import cqr

        print(f"cqr {cqr.__version__}")
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


_asked_to_stop: list[int] = []
"""The signals that asked for it."""


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _asked_to_stop.append(signum)
    raise KeyboardInterrupt


def _say_interrupted() -> None:
    print("Interrupted: what was finished is kept; run the same command to go on.", file=sys.stderr)


def main() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may be in what it cannot write
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun, or as it ends
        _say_interrupted()
        sys.exit(130)
    except SystemExit as ended:
        _leave(ended)


def _leave(ended: SystemExit) -> NoReturn:
    """End the process; without taking PyTorch apart, which takes 0.4 s, a quarter of a question.

    All else is done as Python does it: threads are waited for, what was registered `atexit` is
    called, what was printed goes out.
    """
    if "torch" not in sys.modules or not isinstance(ended.code, int | None):
        raise ended
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:  # what is wrong will be so again, and Python says it
        raise ended from None
    os._exit(ended.code or 0)


if __name__ == "__main__":
    main()
