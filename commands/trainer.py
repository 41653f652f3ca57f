"""The commands of stage two: `cqr data`, `train`, `evaluate`, `compare`, `submit`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cqr import api, machine
from cqr.commands import options
from cqr.commands.choices import value


def data(
    place: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a data set, or a table of queries.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where its pictures are.", show_default="below DIR"),
    ] = None,
    as_: options.As = None,
    protocol: options.Protocol = [],  # noqa: B006
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="FILE", help="Write the paths of the pictures it needs to this file."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also find equal pictures, which reads every file.")
    ] = False,
) -> None:
    """Say which data set a folder holds, and what is missing from it.

    Reads DIR.  Prints data set, protocol, counts beside those of the whole release, pictures
    that are missing, empty or not needed, and texts that are blank.  Writes nothing but the
    file of --list, which `cqr extract --list` takes.

    Example: `cqr data fashion --list fashion.txt`
    """
    from cqr.trainer import console
    from cqr.trainer.datasets.survey import survey, write_list

    found = survey(place, images, value(as_), protocol, compare)
    console.survey(found)
    if list_ is not None:
        there = found.there or found.missing
        write_list(there, list_)
        folder, file = (shlex.quote(str(path)) for path in (found.pictures, list_))
        print(f"Wrote {list_}: {len(there):,} pictures")
        if found.there:
            print(f"Next: cqr extract --images {folder} --list {file} --k 36")
        else:
            print(f"None of them is in {folder}: put them there, then write the list again")


@options.takes_settings
def train(
    features: options.Features,
    data: options.Data = None,
    settings: dict[str, Any] = {},  # noqa: B006
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A choice of the model; repeatable.",
            rich_help_panel=options.MODEL,
        ),
    ] = [],  # noqa: B006
    as_: options.As = None,
    protocol: options.Protocol = [],  # noqa: B006
    max_missing: options.MaxMissing = 0.01,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even if a run could go on.")
    ] = False,
    verbose: options.Verbose = False,
    device: options.Device = "auto",
    precision: options.Precision = None,
    compile_: options.Compile = False,
) -> None:
    """Train a model on the regions of a feature file.

    Reads a feature file and the queries that go with it: the data set given by --data, else
    what lies in or beside the image folder that the file records, else NAME.queries.csv
    beside the file.  Writes a run to artifacts/runs/NAME-MODEL-NNN.  The same command goes on
    where a run was interrupted.  A data set may recommend other defaults than those shown; what
    is used is printed with -v, and recorded in the run.  The models zero-shot and likeness are not
    trained, and need no data set.

    Example: `cqr train --features artifacts/fashion.h5`
    """
    api.train(
        features,
        data=data,
        as_=value(as_),
        protocol=protocol,
        options=set_,
        max_missing=max_missing,
        fresh=fresh,
        device=device,
        precision=precision,
        compile=compile_,
        verbose=verbose,
        **settings,
    )


def evaluate(
    run: options.Run = None,
    features: options.RunFeatures = None,
    data: options.Data = None,
    as_: options.As = None,
    protocol: options.Protocol = [],  # noqa: B006
    published: options.Published = None,
    examples: options.Examples = 12,
    text_encoder: options.MovedEncoder = None,
    max_missing: options.MaxMissing = 0.01,
    verbose: options.Verbose = False,
    device: options.Device = "auto",
) -> None:
    """Score a run under its data set's protocol.

    Reads a run, and the features and queries it was trained on or those given: another
    feature file may be of another data set.  Prints Recall@K beside the
    chance level; writes metrics.json, queries.parquet (what each query found) and report.html
    (one file, with pictures) to the run's folder evaluation/, or evaluation-NAME/ for another
    data set than its own, evaluation-CHOICE=VALUE/ for another choice of --protocol.

    Example: `cqr evaluate`
    """
    api.evaluate(
        run,
        features=features,
        data=data,
        as_=value(as_),
        protocol=protocol,
        published=published,
        examples=examples,
        text_encoder=text_encoder,
        max_missing=max_missing,
        device=device,
        verbose=verbose,
    )


def compare(
    features: options.Features,
    models: Annotated[
        list[str],
        typer.Option(
            metavar="ROW,ROW,...",
            help="What is compared, separated by commas; repeatable.  A row is a model, or a"
            " variant: [LABEL=]MODEL[:NAME=VALUE,...], where MODEL is one of `cqr train --model`"
            " and NAME an option of it, a setting of `cqr train`, or `features` for a file of its"
            " own.",
        ),
    ] = ["lbf"],  # noqa: B006
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Each row is trained with so many.")
    ] = 5,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="[MODEL.]NAME=VALUE",
            help="For every row, a setting of `cqr train`, such as epochs=10; for every row of"
            " MODEL, an option of it too.  Repeatable; what a row says itself wins.",
        ),
    ] = [],  # noqa: B006
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=V1,V2,...",
            help="Add the first row with each of these values; repeatable, one choice at a time."
            "  Three numbers or more are drawn as a curve.",
        ),
    ] = [],  # noqa: B006
    against: Annotated[
        str | None,
        typer.Option(
            metavar="ROW",
            help="Label of the row that each is held against.",
            show_default="the best other one",
        ),
    ] = None,
    published: options.Published = None,
    examples: options.Examples = 8,
    data: options.Data = None,
    as_: options.As = None,
    protocol: options.Protocol = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder.", show_default="artifacts/comparisons/NAME"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Runs at a time.", show_default="one a core, on a GPU one"
        ),
    ] = None,
    max_missing: options.MaxMissing = 0.01,
    device: options.Device = "auto",
    precision: options.Precision = None,
    compile_: options.Compile = False,
    batched: Annotated[
        bool,
        typer.Option(
            "--batched",
            rich_help_panel=options.MACHINE,
            help="Train the seeds of a row as one batched model: for a GPU that one model leaves"
            " idle.",
        ),
    ] = False,
) -> None:
    """Train and score models or variants side by side, with several seeds each.

    Every row has the same queries, epochs, batch, and rule for choosing the epoch.  Each run is a
    process with one thread; one that fails does not end the others.  Interrupted, it goes on when
    the same command is given again, and so it does with more rows or more seeds.

    Reads the feature file and its queries, as `cqr train` does.  Writes artifacts/comparisons/NAME:
    runs/, with a run of each row and seed, runs.parquet, comparison.json, comparison.html and
    plots.

    Example: `cqr compare --features artifacts/fashion.h5 --models lbf,lbf:input=whole --seeds 3`
    """
    from cqr.machine import find_device
    from cqr.report import comparison as report
    from cqr.trainer.comparing import console as comparison_console
    from cqr.trainer.comparing import results as compared
    from cqr.trainer.comparing import run as comparing
    from cqr.trainer.comparing.plan import prepare
    from cqr.trainer.training.material import Wanted

    on_gpu = find_device(device).type == "cuda"
    comparison = prepare(
        features,
        models,
        seeds=seeds,
        wanted=Wanted(data, value(as_), tuple(protocol)),
        shared=set_,
        vary=vary,
        folder=out,
        against=against,
        published=published,
        max_missing=max_missing,
        precision=precision,
    )
    jobs = jobs or (1 if on_gpu else machine.cores())
    how = comparing.How(device, compile_, batched)
    comparison_console.announce(comparison, jobs, how)
    with comparison_console.comparing(comparison) as on_look:
        comparing.run(comparison, jobs=jobs, how=how, on_look=on_look)
    content = compared.write(compared.gather(comparison))
    comparison_console.tables(content)
    for path in report.write(content, comparison, examples=examples):
        print(f"Wrote {path}")
    compared.check_whole(content, comparison)


def submit(
    run: options.Run = None,
    features: options.RunFeatures = None,
    data: options.Data = None,
    as_: options.As = None,
    protocol: options.Protocol = [],  # noqa: B006
    text_encoder: options.MovedEncoder = None,
    max_missing: options.MaxMissing = 0.01,
    check: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Check a file that any program made, of the data set at --data, and write nothing;"
            " repeatable.",
            show_default="none",
        ),
    ] = [],  # noqa: B006
    device: options.Device = "auto",
) -> None:
    """Write the files that a data set's own server scores, or check such files.

    Reads a run, and features and queries as `cqr evaluate` does; ranks the split whose truth
    only the server has.  Writes the files to the run's folder submission/, all of them or
    none: each is checked first against what the server refuses.

    With --check it reads the file and the data set alone, and needs no run.

    Example: `cqr submit --features artifacts/cirr.h5`
    """
    if check:
        from cqr.trainer.evaluation.checking import check_files

        for path, form in check_files(check, data, as_, tuple(protocol)).items():
            sent = f": send it to {form.server}" if form.server else ""
            print(f"{path} is as {form.file} must be{sent}")
        return
    from cqr.machine import find_device
    from cqr.trainer import console
    from cqr.trainer.evaluation.submission import forms_of
    from cqr.trainer.evaluation.submission import submit as write_files
    from cqr.trainer.training import runs
    from cqr.trainer.training.material import Wanted, collect_for

    chosen = runs.chosen(run, text_encoder)
    wanted = Wanted(data, value(as_), tuple(protocol))
    material = collect_for(chosen, features, wanted, split="submitted", max_missing=max_missing)
    forms_of(material.dataset)  # nothing to submit is said before anything else is
    console.announce(chosen, material, material.dataset.protocol.submitted, verbose=True)
    for path, form in write_files(chosen, material, find_device(device)).items():
        print(f"Wrote {path}" + (f": send it to {form.server}" if form.server else ""))
