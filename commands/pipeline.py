"""The commands of stage one: `cqr extract`, `import`, `export`, `inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from cqr import api
from cqr.commands import options
from cqr.commands.choices import DetectorName, Format


def extract(
    images: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of pictures, with all folders below it.")
    ],
    k: Annotated[int, typer.Option(metavar="N", help="Regions a picture.")] = 36,
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Text file of the pictures to take, a path relative to --images on each line.",
            show_default="all of the folder",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Feature file, or its URL on storage that all workers reach (s3://BUCKET/NAME.h5).",
            show_default="artifacts/FOLDER.h5",
        ),
    ] = None,
    detector: Annotated[
        DetectorName,
        typer.Option(
            metavar="DETECTOR",
            help=f"{', '.join(DetectorName)}.  The last three describe cells or boxes by a"
            " pretrained backbone.",
        ),
    ] = DetectorName.auto,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Which network of that detector; a backbone's name on the hub, or folder.",
            show_default="its own",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of weights.", show_default="the detector's own"),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="cells|boxes|crops",
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
        Path | None,
        typer.Option(metavar="FILE", help="File of its weights.", show_default="its own"),
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Use a model that is not under MIT, Apache or BSD."),
    ] = False,
    device: options.Device = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Pictures in a batch.", show_default="4, on a GPU 16"
        ),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Pictures in a shard.", show_default="16 to 512"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Processes.", show_default="one a core, or one a GPU"
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="local: this machine.  ray: the Ray cluster whose address is in the environment"
            " variable RAY_ADDRESS (unset: a Ray that is started here and ended); every node needs"
            " cqr, and the pictures, --weights and --out at the same paths on shared storage.  Ray"
            " picks the GPUs.",
        ),
    ] = "local",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave out files and folders of that name or path, with * and ? as in a shell;"
            " repeatable.  @eaDir, #recycle and __MACOSX always are.",
            show_default=False,
        ),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger pictures; each pixel takes 3 bytes and more.")
    ] = 100_000_000,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="auto|torch|openvino|onnxruntime|fp16",
            help="What computes the networks of grid and bundled on a CPU.  auto: the fastest that"
            " is installed (pip install 'cqr[cpu]'), for 256 pictures or more; a file that is"
            " continued keeps its own.  fp16: any network on a GPU, in 16 bits.",
        ),
    ] = "auto",
    overwrite: options.Overwrite = False,
    retry_failed: options.RetryFailed = False,
) -> None:
    """Turn a folder of pictures into a file of regions.

    Reads every picture below --images, or those on a --list.  Writes
    artifacts/FOLDER.h5, its data beside it in artifacts/FOLDER.shards, and
    artifacts/FOLDER.failures.csv if a file could not be used.  Interrupted, it
    goes on when the same command is given again.

    Example: `cqr extract --images photos --k 36`
    """
    api.extract(
        images,
        k,
        out=out,
        list=list_,
        detector=detector.value,
        config=config,
        weights=weights,
        regions=regions,
        finder=finder,
        finder_weights=finder_weights,
        accept_licence=accept_licence,
        device=device,
        batch=batch,
        shard=shard,
        workers=workers,
        engine=engine,
        exclude=exclude or (),
        max_pixels=max_pixels,
        runtime=runtime,
        overwrite=overwrite,
        retry_failed=retry_failed,
    )


def import_(
    source: Annotated[
        Path,
        typer.Argument(help="TSV file, or folder of .npz files or arrays.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Feature file.", show_default="artifacts/SOURCE.h5"),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(metavar="N", help="Regions a picture.", show_default="the most that one has"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the pictures, to turn the source's ids into their paths."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    retry_failed: options.RetryFailed = False,
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
    from cqr.remote import located

    job = ImportJob(
        source=source,
        out=located(out) if out else default_out(source),
        k=k,
        images=images,
        overwrite=overwrite,
        retry_failed=retry_failed,
    )
    console.run_import(job)
    print(f"Next: {api.next_of(api.open_features(job.out))}")


def export(
    file: Annotated[Path, typer.Argument(help="A feature file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Folder (npz) or file (parquet).",
            show_default="NAME.npz, NAME.parquet",
        ),
    ] = None,
    format_: Annotated[
        Format,
        typer.Option("--format", help="npz: a file a picture.  parquet: a table, a row a region."),
    ] = Format.npz,
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

    console.run_export(file, out or file.with_suffix(f".{format_}"), format_.value)


def inspect(
    file: Annotated[Path, typer.Argument(help="A feature file that cqr extract wrote.")],
    show: Annotated[
        int, typer.Option(metavar="N", min=0, help="Draw boxes on so many pictures.")
    ] = 0,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw into this file.", show_default="NAME.boxes.png"),
    ] = None,
) -> None:
    """Print what is in a feature file and check every value.

    Reads artifacts/NAME.h5 and its shards.  Writes nothing, but for the picture
    of --show.  Ends with a status other than 0 if anything is wrong.

    Example: `cqr inspect artifacts/photos.h5 --show 9`
    """
    from cqr.pipeline import inspection

    inspection.inspect(file, show, save)
