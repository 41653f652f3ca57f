"""Writes a folder of generated data: pictures, drawings, queries, and what is where.

    OUT/images/css_SPLIT_000000.png      224 x 168, of crowds 448 x 336; SPLIT is train or test
    OUT/drawings/css_SPLIT_000000.png    64 x 64, the same scenes drawn flat (unless left out)
    OUT/train.json, test.json            {"images": [...], "queries": [...]}
    OUT/scenes.json                      settings, pairs, counts; written last: the folder is whole

Each picture has a random generator of its own, seeded by the seed, the split
and its number, so the bytes do not depend on how the work was shared out.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.interrupts import end_with_parent, interrupts_held_back
from cqr.scenes import draw, protocol
from cqr.scenes.layouts import LAYOUTS
from cqr.scenes.protocol import SPLITS
from cqr.scenes.render import Renderer
from cqr.typed import parsed

DONE = "scenes.json"
STARTED = "scenes.started.json"
"""Stands in the folder while it is not whole; holds the settings."""
CHUNK = 32
"""Pictures that a worker takes at once."""

Progress = Callable[[int, int], None]
"""Called with how many pictures are done, and of how many."""


@dataclass(frozen=True)
class Settings:
    """What decides every byte of the folder."""

    seed: int = 0
    references: int = 1000
    modifications: int = 16
    drawings: bool = True
    held_out: int = 0
    pictures: bool = True
    layout: str = "grid"
    test_references: int | None = None
    texts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < protocol.HELD_OUT:
            raise UserError(
                f"--held-out {self.held_out} is none of 0 to {protocol.HELD_OUT - 1}, the choices "
                "of what is kept for testing"
            )
        if self.drawings and not self.pictures:
            raise UserError("drawings are made beside pictures: give --no-drawings too")
        if self.layout not in LAYOUTS:
            raise UserError(f"--layout {self.layout} is none of {', '.join(LAYOUTS)}")
        if self.drawings and self.layout != "grid":
            raise UserError("only scenes of the grid are drawn flat: give --no-drawings too")

    def number(self, split: str) -> int:
        """How many references a split has."""
        if split == "test" and self.test_references is not None:
            return self.test_references
        return self.references

    def texts_each(self, split: str) -> int:
        """How many texts a pair of a split has."""
        return self.texts if split == "train" else 1

    def told(self) -> dict[str, Any]:
        """What a manifest holds: of choices that came later, those that are not the default."""
        later = {f.name: f.default for f in fields(self) if f.name in LATER}
        return {n: v for n, v in asdict(self).items() if n not in later or v != later[n]}


LATER = ("held_out", "pictures", "layout", "test_references", "texts")
"""Settings that manifests were written without before there were such: the default."""


@dataclass(frozen=True)
class Outcome:
    """`manifest` is what scenes.json holds; `fresh` is False if it was all there before."""

    manifest: dict[str, Any]
    fresh: bool


def generate(
    out: Path,
    settings: Settings,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Fill `out`, or do nothing if it is filled by the same settings already.

    A run that was interrupted is finished by the same call.  With `overwrite`,
    the pictures and tables that an earlier run wrote are removed first; other
    files are left alone.

    Raises:
        UserError: the folder holds something else and `overwrite` is not given;
            no OpenGL; the folder cannot be written.
    """
    try:
        finished = _finished(out, settings)
        if finished and not overwrite:
            return Outcome(finished, fresh=False)
        if settings.pictures:
            _renderer(LAYOUTS[settings.layout].size)  # fails before anything is touched
        _make_room(out, settings, overwrite)
        return Outcome(_fill(out, settings, workers, progress), fresh=True)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or out}: {error.strerror or error}; "
            "make room or choose another place with --out"
        ) from error


def _fill(out: Path, settings: Settings, workers: int, progress: Progress) -> dict[str, Any]:
    splits = {
        name: LAYOUTS[settings.layout].make_split(
            name,
            settings.number(name),
            settings.modifications,
            settings.seed,
            settings.held_out,
            settings.texts_each(name),
        )
        for name in SPLITS
    }
    jobs = [
        Job(out, name, number, scene, settings)
        for name, split in splits.items()
        for number, scene in enumerate(split.scenes)
    ]
    progress(0, len(jobs))
    records = []
    for record in _run(jobs, workers):
        records.append(record)
        progress(len(records), len(jobs))
    first = 0
    for name, split in splits.items():
        last = first + len(split.scenes)
        _write_table(out / f"{name}.json", records[first:last], split)
        first = last
    manifest = _manifest(settings, splits)
    with replacing(out / DONE) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    (out / STARTED).unlink()
    return manifest


def _manifest(settings: Settings, splits: dict[str, Any]) -> dict[str, Any]:
    layout = LAYOUTS[settings.layout]
    return {
        "format": "cqr-scenes",
        "version": 1,
        **settings.told(),
        "image_size": list(layout.size),
        "pairs": {
            name: [list(p) for p in layout.pairs(name, settings.held_out)] for name in splits
        },
        "splits": {
            name: {"images": len(split.scenes), "queries": len(split.queries)}
            for name, split in splits.items()
        },
    }


def _write_table(path: Path, images: list[dict[str, Any]], split: Any) -> None:
    """One record a line, so that people can read it, too."""

    def lines(records: list[dict[str, Any]]) -> str:
        return ",\n".join(json.dumps(record) for record in records)

    queries = [asdict(query) for query in split.queries]
    with replacing(path) as temporary:
        temporary.write_text(
            f'{{"images": [\n{lines(images)}\n],\n"queries": [\n{lines(queries)}\n]}}\n'
        )


# What is in the folder already


def _finished(out: Path, settings: Settings) -> dict[str, Any] | None:
    """The manifest, if the folder is whole and made by these settings."""
    manifest = _read(out / DONE)
    if manifest is None or not _made_by(manifest, settings):
        return None
    names = [
        f"css_{name}_{number:06d}.png"
        for name, counts in manifest["splits"].items()
        for number in range(counts["images"])
    ]
    folders = ["images"] * settings.pictures + ["drawings"] * settings.drawings
    present = all(_names(out / folder).issuperset(names) for folder in folders)
    return manifest if present and all((out / f"{n}.json").exists() for n in SPLITS) else None


def _make_room(out: Path, settings: Settings, overwrite: bool) -> None:
    """See that the folder may be filled, and mark it as being filled."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder: choose another place with --out")
    if not overwrite and _names(out):
        before = _read(out / DONE) or _read(out / STARTED)
        if before is None:
            raise UserError(
                f"{out} holds files that are not generated scenes: choose another folder with "
                "--out, or write beside them with --overwrite"
            )
        if not _made_by(before, settings):
            raise UserError(
                f"{out} holds scenes of other settings ({_describe(before)}): choose another "
                "folder with --out, or replace them with --overwrite"
            )
    for name in (DONE, *(f"{split}.json" for split in SPLITS)):
        (out / name).unlink(missing_ok=True)
    for folder in ("images", "drawings"):
        for old in (out / folder).glob("css_*.png"):
            old.unlink()
    with replacing(out / STARTED) as temporary:
        temporary.write_text(json.dumps({"format": "cqr-scenes", "version": 1, **settings.told()}))
    if settings.pictures:
        (out / "images").mkdir(exist_ok=True)
    if settings.drawings:
        (out / "drawings").mkdir(exist_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """A manifest that this program wrote, or None."""
    try:
        manifest = parsed(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("format") == "cqr-scenes"
    return manifest if ours else None


def _made_by(manifest: dict[str, Any], settings: Settings) -> bool:
    wanted = {"version": 1, **asdict(settings)}
    usual = {f.name: f.default for f in fields(settings) if f.name in LATER}
    return {key: manifest.get(key, usual.get(key)) for key in wanted} == wanted


def _describe(manifest: dict[str, Any]) -> str:
    told = (key for key in asdict(Settings()) if key in manifest)
    return ", ".join(f"{key} {manifest[key]}" for key in told)


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()


# The pictures


@dataclass(frozen=True)
class Job:
    """One picture to be made."""

    out: Path
    split: str
    number: int
    scene: Any
    settings: Settings


def _run(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    """The records of the pictures, in order."""
    if workers == 1:
        yield from map(_make, jobs)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=end_with_parent
    )
    try:
        with interrupts_held_back():
            records = pool.map(_make, jobs, chunksize=CHUNK)
        yield from records
    finally:
        pool.shutdown(cancel_futures=True)


@functools.cache
def _renderer(size: tuple[int, int]) -> Renderer:
    """One a process and size."""
    return Renderer(size)


def _make(job: Job) -> dict[str, Any]:
    settings, layout = job.settings, LAYOUTS[job.settings.layout]
    rng = protocol.picture_rng(settings.seed, job.split, job.number)
    view = layout.arrange(job.scene, rng)
    name = f"css_{job.split}_{job.number:06d}.png"
    if settings.pictures:
        picture, seen = _renderer(layout.size).render(view)
        Image.fromarray(picture).save(job.out / "images" / name, compress_level=1)
    else:
        seen = layout.look(view)
    if settings.drawings:
        draw.draw(view).save(job.out / "drawings" / name, compress_level=1)
    return {
        "file": f"images/{name}",
        "drawing": f"drawings/{name}" if settings.drawings else None,
        "caption": layout.caption(job.scene),
        "objects": [
            layout.record(one, shown, settings.drawings)
            for one, shown in zip(view.objects, seen, strict=True)
        ],
    }
