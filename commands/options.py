"""Options that several commands have, and those that `cqr train` has from its settings."""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from cqr.commands.choices import DataSetName
from cqr.trainer.training.settings import Settings

DATA, MODEL, AROUND, LEARNING, MACHINE = (
    "The data", "The model", "Around the model: ABE and SNR", "Learning", "This machine"
)  # fmt: skip
"""Panels of the help of `cqr train`, after the options that matter first."""

FIRST = ("model", "epochs", "start", "seed")
"""Settings that matter first, beside --features and --data."""

PANELS = {
    MODEL: ("input", "k", "text_encoder", "max_words", "reference_weight"),
    AROUND: ("learners", "divergence", "divergence_margin", "snr", "causality",
             "causality_distance"),
    LEARNING: ("loss", "kappa", "negatives", "batch", "together", "reorder", "lr", "muon_lr",
               "warmup", "weight_decay", "clip", "validation", "select"),
}  # fmt: skip
"""Where the help of `cqr train` shows the other settings."""

Device = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ...", rich_help_panel=MACHINE),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print all that was settled, protocol included.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MACHINE,
        help="As Lightning Fabric names it, e.g. 32-true, bf16-mixed.",
        show_default="32-true, on a GPU bf16-mixed",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        rich_help_panel=MACHINE,
        help="Compile what a step does, which takes minutes: for a long training on a GPU.",
    ),
]
Features = Annotated[
    Path, typer.Option(metavar="FILE", help="Feature file that `cqr extract` wrote.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|TABLE", help="Data set folder, or table of reference,text,target[,split]."
    ),
]
As = Annotated[
    DataSetName | None,
    typer.Option(
        "--as",
        metavar="DATASET",
        help=f"Which data set it is: {', '.join(DataSetName)}.",
        show_default="recognised by its layout",
        rich_help_panel=DATA,
    ),
]
Protocol = Annotated[
    list[str],
    typer.Option(
        "--protocol",
        metavar="NAME=VALUE",
        rich_help_panel=DATA,
        help="A choice that the data set's protocol leaves; repeatable.  docs/ has a page each.",
    ),
]
Run = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the run; the newest in artifacts/runs if absent."),
]
RunFeatures = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Feature file; the one it was trained on if absent."),
]
MovedEncoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR", help="Where the run's text encoder lies now, if it was moved."
    ),
]
MovedWeights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the detector's weights lie now, if they were moved."),
]
Published = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV of published numbers, columns row,source,R@1,...: shown in columns of their own.",
    ),
]
Examples = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=50,
        help="Queries that the page shows with pictures, chosen by rule.",
    ),
]
MaxMissing = Annotated[
    float,
    typer.Option(
        metavar="SHARE", help="Share of the images that may lack regions.", rich_help_panel=DATA
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again, whatever is there.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try pictures again that could not be used.")
]
Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="NAME",
        help="exact, hnsw, or milvus://HOST:PORT/COLLECTION.",
        show_default="by the number of vectors",
    ),
]


METAVARS: dict[str | type, str] = {
    "model": "MODEL", "loss": "LOSS", "text_encoder": "NAME|DIR",
    "validation": "SHARE", int: "N", float: "X",
}  # fmt: skip
"""What the help calls the value of a setting, by its name or type; choices name themselves."""


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of `Settings` in place of its argument `settings`.

    The command gets those that were typed as a dict by name.
    """
    own = inspect.signature(command)
    options = sorted(_options_of_settings(), key=lambda option: option.name not in FIRST)
    names = [option.name for option in options]
    parameters = [
        parameter
        for old in own.parameters.values()
        for parameter in (options if old.name == "settings" else [old])
    ]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        typed = {name: arguments.pop(name) for name in names}
        settings = {k: v for k, v in typed.items() if v is not None}
        plain = {k: v.value if isinstance(v, Enum) else v for k, v in settings.items()}
        command(**arguments, settings=plain)

    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _offered(name: str, words: Iterable[str]) -> type[StrEnum]:
    """The choices of a setting, as the command line takes them."""
    make: Any = StrEnum  # in the form for names that are only known when it runs
    made: type[StrEnum] = make(name, {word: word for word in words})
    return made


def _options_of_settings() -> Iterable[inspect.Parameter]:
    types = get_type_hints(Settings)
    for field in fields(Settings):
        if "help" not in field.metadata:
            continue
        kind = types[field.name]
        if get_origin(kind) is Literal:
            kind = _offered(field.name, get_args(kind))
        elif type(None) in get_args(kind):
            kind = get_args(kind)[0]
        flag = f"--{field.name.replace('_', '-')}"
        option = typer.Option(
            flag,
            help=field.metadata["help"],
            show_default=field.metadata["shown"],
            metavar=METAVARS.get(field.name) or METAVARS.get(kind),
            rich_help_panel=next((p for p, names in PANELS.items() if field.name in names), None),
        )
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, option],
        )
