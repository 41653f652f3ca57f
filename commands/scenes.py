"""`cqr scenes`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cqr import machine


def scenes(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder to fill.", show_default=False)
    ],
    references: Annotated[
        int, typer.Option(metavar="N", min=1, help="Reference scenes in each split.")
    ] = 1000,
    test_references: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Reference scenes in the test split alone.",
            show_default="as --references",
        ),
    ] = None,
    modifications: Annotated[
        int, typer.Option(metavar="N", min=1, help="Targets for each reference.")
    ] = 16,
    texts: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Texts for each target of training, a query each; a target of the test has one.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same bytes.")] = 0,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes.", show_default="one a core")
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            help="Draw the scenes; without, the tables alone are made, which say where each object"
            " would appear, and nothing needs OpenGL."
        ),
    ] = True,
    drawings: Annotated[
        bool | None,
        typer.Option(
            help="Also draw each scene flat, 64 x 64.", show_default="of the grid, with pictures"
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="grid, or crowd: 12 to 40 things of seven shapes on free places, that hide one"
            " another in part, in pictures of 448 x 336; told by relation, number and negation.",
        ),
    ] = "grid",
    held_out: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Which eight colour-shape pairs are kept for the test: 0, 1 or 2; no pair is kept"
            " by two of them.",
        ),
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace scenes that are in the folder.")
    ] = False,
) -> None:
    """Make pictures, queries and boxes under the CSS protocol.  Reads nothing.

    A query is a picture of a scene (3 x 3 cells, 8 colours, 3 shapes, 2 sizes) and a
    sentence such as "make small red circle blue"; its target is a new picture of the
    scene that results.  The sentences have the words of the protocol, in which a cube is
    called rectangle, a sphere circle and a cylinder triangle.  Eight colour-shape pairs
    occur only in the test split.

    Writes `OUT/images/*.png`, `OUT/drawings/*.png`, OUT/train.json, OUT/test.json and,
    last, OUT/scenes.json.  An interrupted run is finished by the same command.

    Example: `cqr scenes --out fashion --references 100`
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    from cqr.progress import bar
    from cqr.scenes.generate import Settings, generate
    from cqr.scenes.layouts import LAYOUTS

    columns = "scenes", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with bar(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("scenes", total=None)
        outcome = generate(
            out,
            Settings(
                seed,
                references,
                modifications,
                (pictures and layout == "grid") if drawings is None else drawings,
                held_out,
                pictures,
                layout,
                test_references,
                texts,
            ),
            workers=workers or machine.cores(),
            overwrite=overwrite,
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )
    print(f"{out} is complete" + ("" if outcome.fresh else " already: nothing to do"))
    for name, counts in outcome.manifest["splits"].items():
        print(f"  {name}: {counts['images']} pictures, {counts['queries']} queries")
    for line in LAYOUTS[layout].told:
        print(line)
    if not pictures:
        return
    print(f"Next: cqr extract --images {shlex.quote(str(out))} --k 36")
