"""The command line: parses, calls one function of a stage, prints.  No logic here."""

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from cqr.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find an image with an image and a sentence.",
)


@app.callback()
def _app() -> None:
    pass


@app.command()
def extract(
    images: Annotated[Path, typer.Option(help="Folder of pictures, with all folders below it.")],
    k: Annotated[int, typer.Option(help="Regions a picture.")] = 36,
    out: Annotated[
        Path | None, typer.Option(help="Feature file.", show_default="artifacts/FOLDER.h5")
    ] = None,
    detector: Annotated[
        str, typer.Option(help="auto, bundled, torchvision, detectron2 or grid.")
    ] = "auto",
    config: Annotated[
        str | None, typer.Option(help="Which network of that detector.", show_default="its own")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of weights.", show_default="the detector's own")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures in a batch.", show_default="4, on a GPU 16")
    ] = None,
    shard: Annotated[
        int | None, typer.Option(min=1, help="Pictures in a shard.", show_default="16 to 512")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one a core, or one a GPU")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, whatever is there.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try pictures again that could not be used.")
    ] = False,
) -> None:
    """Turn a folder of pictures into a file of regions.

    Reads every picture below --images.  Writes artifacts/FOLDER.h5, its data
    beside it in artifacts/FOLDER.shards, and artifacts/FOLDER.failures.csv if a
    file could not be used.  Interrupted, it goes on when the same command is
    given again.

    Example:  cqr extract --images photos --k 36
    """
    from cqr.pipeline import console
    from cqr.pipeline.detectors import DetectorSpec
    from cqr.pipeline.extract import Job, default_out

    if detector == "auto" and (config or weights):
        raise UserError("--config and --weights need a --detector that they belong to; name it")
    console.run_extract(
        Job(
            folder=images,
            out=out or default_out(images),
            k=k,
            detector=None
            if detector == "auto"
            else DetectorSpec(detector, config, weights, device),
            device=device,
            batch=batch,
            shard=shard,
            workers=workers,
            overwrite=overwrite,
            retry_failed=retry_failed,
        )
    )


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A feature file that cqr extract wrote.")],
    show: Annotated[int, typer.Option(min=0, help="Draw boxes on so many pictures.")] = 0,
    save: Annotated[
        Path | None, typer.Option(help="Draw into this file.", show_default="NAME.boxes.png")
    ] = None,
) -> None:
    """Print what is in a feature file and check every value.

    Reads artifacts/NAME.h5 and its shards.  Writes nothing, but for the picture
    of --show.  Ends with a status other than 0 if anything is wrong.

    Example:  cqr inspect artifacts/photos.h5 --show 9
    """
    from cqr.pipeline import console

    console.run_inspect(file, show, save)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM.  Not KeyboardInterrupt, which typer ends without a word."""


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted


def main() -> None:
    """Run the command line; what a user caused ends as one sentence, not a traceback."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted:
        print("Interrupted: what was finished is kept.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
