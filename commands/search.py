"""The commands of asking: `cqr index`, `search`, `serve`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cqr.commands import options
from cqr.errors import UserError


def index(
    run: options.Run = None,
    features: options.RunFeatures = None,
    index: options.Index = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="CSV or Parquet with a column `path`; its other columns can be asked for by"
            " `cqr search --where`.",
            show_default="that of the last time",
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Encode the pictures of a feature file, to be searched.

    Reads a run and the features that it was trained on, or others; where nothing was trained on
    them, makes a run that needs no training.  Writes the run's folder
    index/ (index-NAME/ for another feature file NAME.h5).  Given again, it encodes only pictures
    that are new and drops those that are gone; interrupted, it goes on.

    Example: `cqr index --features artifacts/fashion.h5`
    """
    from cqr.search import console
    from cqr.search.at_once import run_for
    from cqr.search.command import index as run_index
    from cqr.search.server.suggestions import first, suggestions

    used = run_for(run, features, device=device, say=console.say)
    with console.bars() as progress:
        built, name = run_index(used, features, index, metadata, device, progress)
    g = built.gallery
    console.print_built(built, name, first(suggestions(used, features), g.paths, used))


def search(
    image: Annotated[
        list[str],
        typer.Option(
            metavar="PICTURE",
            help="Picture to start from: one of the gallery, or a file; repeatable.",
            show_default="none, where the model answers texts alone",
        ),
    ] = [],  # noqa: B006
    text: Annotated[
        list[str],
        typer.Option(
            metavar="[WEIGHT:]TEXT",
            help="What is to change; repeatable, then each may have a weight, as 2:red.",
            show_default="nothing",
        ),
    ] = [],  # noqa: B006
    not_: Annotated[
        list[str],
        typer.Option("--not", metavar="TEXT", help="A change that is not wanted; repeatable."),
    ] = [],  # noqa: B006
    k: Annotated[int, typer.Option(metavar="N", help="Results.")] = 10,
    keep_reference: Annotated[
        bool, typer.Option("--keep-reference", help="The pictures of --image may be results.")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Condition on the metadata, such as 'colour == \"red\" and price < 20'.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    run: options.Run = None,
    features: options.RunFeatures = None,
    index: options.Index = None,
    text_encoder: options.MovedEncoder = None,
    weights: options.MovedWeights = None,
    device: options.Device = "auto",
) -> None:
    """Find pictures: like these, but changed as the text says.

    Reads a run, its features and what `cqr index` wrote, which is made where there is none yet.
    Where nothing was trained on the features, makes a run that needs no training: of pictures and
    texts if the features share a space with texts, else of likeness alone.  Prints ranked paths
    with scores, and small pictures where the terminal has the colours (COLORTERM=truecolor;
    NO_COLOR=1: none).  A picture of the gallery is known by its path there, its place on disk or
    its file name, and its regions are read; of any other file, the detector that made the features
    finds them.  Writes nothing else.

    Example: `cqr search --image a.jpg --text "make it red"`
    """
    from cqr.search import console
    from cqr.search.at_once import lacks_index, run_for
    from cqr.search.engine import Engine
    from cqr.search.question import Question, weighted

    used = run_for(run, features, text_encoder, device, console.say)
    if lacks_index(used, features):
        from cqr.search.command import index as bring_up_to_date

        with console.bars() as progress:
            bring_up_to_date(used, features, index, None, device, progress)
    engine = Engine.open(used, features, index, device, weights=weights)
    question = Question(
        references=tuple(map(engine.named, image)),
        texts=tuple(map(weighted, text)),
        nots=tuple(not_),
        k=k,
        keep_references=keep_reference,
        where=where,
    )
    answer = engine.ask(question)
    if json:
        console.print_json(answer, question, engine)
    else:
        console.print_answer(answer, engine)


def serve(
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures: extracts them first, as `cqr extract --images` does, where"
            " that was not done yet.",
            show_default=False,
        ),
    ] = None,
    run: options.Run = None,
    features: options.RunFeatures = None,
    index: options.Index = None,
    text_encoder: options.MovedEncoder = None,
    weights: options.MovedWeights = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST", help="Address to listen at; 127.0.0.1 is for this machine alone."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes any free one.")
    ] = 8000,
    open_: Annotated[
        bool, typer.Option("--open", help="Show the page in the browser of this machine.")
    ] = False,
    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV to which answers that are marked as right are added, for `cqr train --data`.",
            show_default="none are kept",
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            help="Another run over the same pictures, whose results can be seen beside.",
            show_default="none",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="File to which a line of JSON is added for each request; - prints them.",
            show_default="none is kept",
        ),
    ] = None,
    device: options.Device = "auto",
) -> None:
    """Answer questions over HTTP, with a page to ask them on.

    With --images, one command from a folder of pictures to the page.  Pick or drop a picture, say
    what should be different, go on from what was found.  Brings the gallery up to date first, as
    `cqr index` does; new pictures are searched once it is started anew.  docs/serve.md describes
    the JSON API.

    Reads a run, its features, and the pictures themselves; with --images, artifacts/FOLDER.h5,
    which is made if it is not there.  Where nothing was trained on the
    features, makes a run that needs no training, as `cqr search` does.  Writes what `cqr index`
    writes, and the files of --collect and --log; uploaded pictures are kept in memory alone.

    Example: `cqr serve --images photos`
    """
    from cqr.search import console
    from cqr.search.at_once import run_for
    from cqr.search.command import index as bring_up_to_date
    from cqr.search.engine import Engine
    from cqr.search.server.collected import Collected
    from cqr.search.server.serve import leave, needed
    from cqr.search.server.serve import serve as answer
    from cqr.search.server.suggestions import suggestions
    from cqr.trainer.training.runs import Run

    needed()  # said before anything is computed
    from cqr.search.server.journal import Journal

    journal = None if log is None else Journal.at(log)
    collected = None if collect is None else Collected.at(collect)
    if images is not None:
        if features is not None:
            raise UserError("--images and --features both say what is searched: leave one out")
        features = _extracted(images, device)
    used = run_for(run, features, text_encoder, device, console.say)
    other = None if beside is None else run_for(beside, None, None, device, console.say)

    def opened(run: Run) -> Engine:
        console.say(f"Bringing the gallery of {run.path} up to date")
        with console.bars(spoken=True) as progress:
            bring_up_to_date(run, features, index, None, device, progress)
        return Engine.open(run, features, index, device, weights=weights)

    engine = opened(used)
    second = None if other is None else opened(other)
    texts = suggestions(engine.run, features)
    answer(
        engine,
        texts,
        host,
        port,
        show=open_,
        collected=collected,
        beside=second,
        journal=journal,
    )
    leave()


def _extracted(images: Path, device: str) -> Path:
    """The feature file of a folder: made with the defaults, or the one that is there.

    One that is there may be of another detector or K, so it is not gone on with; pictures that
    it lacks are said, with the command that adds them.
    """
    from cqr.listing import find
    from cqr.pipeline import extract_console
    from cqr.pipeline.extract import Job, default_out
    from cqr.pipeline.feature_file import open_features, shards_folder
    from cqr.pipeline.plan import Plan
    from cqr.search.console import say

    out = default_out(images)
    if not out.exists():
        extract_console.run_extract(Job(images, out, k=36, device=device))
        return out
    file = open_features(out)
    if Path(file.image_root) != images.resolve():
        raise UserError(
            f"{out} is of {file.image_root}, another folder of that name: extract with "
            f"`cqr extract --images {shlex.quote(str(images))} --out FILE.h5`, and serve with "
            "--features FILE.h5"
        )
    plan = Plan.load(shards_folder(out))
    known = file.paths if plan is None else plan.paths  # those that failed are no news
    new = len(set(find(images, skip=out.parent)[0]) - set(known))
    if new:
        say(
            f"Not searched: {new:,} pictures that came after {out}; add them: {file.header.command}"
        )
    return out
