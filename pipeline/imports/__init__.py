"""Other people's features into a feature file: a file a format, and what they share here."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cqr.errors import UserError
from cqr.listing import Failure, files, look
from cqr.pipeline import assembly, images
from cqr.pipeline.assembly import Summary, Task, Times
from cqr.pipeline.imports import mmf
from cqr.pipeline.imports.arrays import Arrays
from cqr.pipeline.imports.mmf import Mmf
from cqr.pipeline.imports.names import Names
from cqr.pipeline.imports.npz import Npz
from cqr.pipeline.imports.source import EXTRAS, Broken, Entry, Kind, Source, regions
from cqr.pipeline.imports.tsv import Tsv
from cqr.pipeline.plan import shard_size
from cqr.pipeline.shards import Header, Rows


@dataclass(frozen=True)
class ImportJob:
    """What to import, and into which file.

    Attributes:
        source: a TSV file, or a folder of .npz files or of arrays.
        out: the feature file; its shards lie beside it.
        k: K; None: as many as the picture with most regions has.
        images: folder of the pictures that the ids name; None: ids are kept as paths.
        shard: pictures in a shard; None: see `plan.shard_size`.
        overwrite: start again, whatever is there.
        retry_failed: try the pictures again whose values could not be used.
    """

    source: Path
    out: Path
    k: int | None = None
    images: Path | None = None
    shard: int | None = None
    overwrite: bool = False
    retry_failed: bool = False


@dataclass(frozen=True)
class Survey:
    """What a look through a source has shown.

    Attributes:
        entries: by path, in the order of the source.
        kind: of all of them.
        refused: what cannot be used.
        unmatched: ids that name no one picture.
        loose: ids that are written otherwise than the path that they fit.
    """

    entries: dict[str, Entry]
    kind: Kind
    refused: list[Failure]
    unmatched: list[str]
    loose: list[str]


def default_out(source: Path) -> Path:
    """artifacts/NAME.h5, NAME being the source's without its suffixes."""
    name = source.resolve().name.split(".")[0]
    return Path("artifacts") / f"{name or 'features'}.h5"


def import_features(
    job: ImportJob,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Write what is missing of a feature file; rerunning continues, as with `extract`.

    A first pass looks through the source for what it holds, a second one reads
    it, in its order; memory does not grow with it, but for the names.

    Raises:
        UserError: nothing to read, nowhere to write, settings that differ from
            those of what is there, another process at the same file, pictures of
            unknown size, no picture usable; finished shards stay.
    """
    assembly.check_out(job.out)
    assembly.check_names(job.source, job.images)
    if job.k is not None and job.k < 1:
        raise UserError(f"--k is {job.k}, it must be at least 1")
    names = None if job.images is None else Names(look(job.images, exclude=()).paths)
    with closing(open_source(job.source)) as source:
        say(f"Source: {source.format}, {job.source}")
        survey = look_through(source, job.source, names)
        most = max(entry.regions for entry in survey.entries.values())
        say(f"Found: {len(survey.entries):,} pictures of up to {most} regions, {survey.kind}")
        for note in source.notes:
            say(note)
        header = _header(job, source, survey)
        _check_sizes(job, source, survey, header)
        with assembly.locked(job.out):
            paths = list(survey.entries)
            size = job.shard or shard_size(len(paths))
            plan = assembly.planned(job.out, header, paths, size, job.overwrite)
            tasks = assembly.unfinished(job.out, plan, job.retry_failed)
            times = _fill(tasks, source, survey, progress)
            notes = _notes(job, survey, header.k)
            return assembly.finished(
                job.out, job.source, plan, tasks, paths, survey.refused, notes, times
            )


def open_source(path: Path) -> Source:
    """Raises UserError if it is none of the formats."""
    if not path.exists():
        raise UserError(f"{path} does not exist; name a TSV file or a folder of features")
    if what := other_format(path):
        raise UserError(f"{path} is {what}")
    if not path.is_dir():
        return Tsv(path)
    if (path / "features.npy").exists():
        return Arrays(path)
    found, unreadable = files(path, {".npz", ".npy"})
    kind = Mmf if any(name.endswith(mmf.END) for name in found) else Npz
    return kind(path, found, unreadable)


_ARRAYS = "save it as features.npy, boxes.npy and paths.txt (docs/features.md)"


def other_format(path: Path) -> str:
    """What a file is that is none of the formats, and the way in, by its first bytes; or ""."""
    if path.is_dir():
        lmdb = path / "data.mdb"
        return (
            f"an LMDB database: read it with the package lmdb, and {_ARRAYS}"
            if (lmdb.exists())
            else ""
        )
    if not path.is_file():  # to open a pipe is to wait
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return ""  # whoever reads it says so
    if head.startswith(b"\x89HDF"):
        return f"an HDF5 file, whose layout nothing fixes: read it with h5py, and {_ARRAYS}"
    if head[16:20] == b"\xde\xc0\xef\xbe":
        return f"an LMDB database: read it with the package lmdb, and {_ARRAYS}"
    if head.startswith(b"\x93NUMPY"):
        return "one array: name its folder, with features.npy, boxes.npy and paths.txt in it"
    if head.startswith(b"PK"):
        return "a zip or npz archive: name the folder of .npz files, one a picture"
    first = head.split(b"\t", 2)
    named = first[0].decode("latin1").isprintable()  # or the bytes only happen to be these
    if len(first) == 2 and named and first[1].lstrip().startswith(b"{"):
        return (
            "a TSV of JSON, as VinVL's predictions are: write it as image_id, num_boxes and"
            " features in base64, a line a picture"
        )
    return ""


def look_through(source: Source, where: Path, names: Names | None) -> Survey:
    """Raises UserError if nothing in it can be used."""
    found: list[tuple[str, Entry]] = []
    refused: list[Failure] = []
    unmatched: list[str] = []
    for entry in source.entries():
        if isinstance(entry, Failure):
            refused.append(entry)
        elif entry.regions < 1:
            refused.append(_failure(entry.id, "has no regions", entry))
        else:
            path = names.find(entry.id) if names else entry.id
            if path is None:
                unmatched.append(entry.id)
            found.append((path or entry.id, entry))
    if not found:
        what = "it is empty"
        if refused:
            what = f"the first of {len(refused)}, {refused[0].path} {refused[0].reason}"
        raise UserError(f"nothing in {where} can be used ({what})")

    kind = Counter(entry.kind for _, entry in found).most_common(1)[0][0]
    entries: dict[str, Entry] = {}
    for path, entry in found:
        if entry.kind != kind:
            reason = f"has {entry.kind}, where most have {kind}"
            refused.append(_failure(path, reason, entry))
        elif path in entries:
            before = entries[path].note or entries[path].place
            refused.append(_failure(path, f"is there already, in {before}", entry))
        else:
            entries[path] = entry
    return Survey(entries, kind, refused, unmatched, names.loose if names else [])


def _failure(path: str, reason: str, entry: Entry) -> Failure:
    return Failure(path, f"{reason} ({entry.note})" if entry.note else reason)


def _header(job: ImportJob, source: Source, survey: Survey) -> Header:
    k = job.k or max(entry.regions for entry in survey.entries.values())
    root = job.images or (job.source if job.source.is_dir() else job.source.parent)
    words = ["cqr", "import", str(job.source.resolve()), "--k", str(k)]
    if job.images is not None:
        words += ["--images", str(job.images.resolve())]
    identity = {
        "name": "import",
        "format": source.format,
        "source": job.source.resolve().name,
        "order": "confidence" if survey.kind.ranked else "the source's",
        "whole": "mean of the source's regions",
    }
    return Header.new(
        k=k,
        dim=survey.kind.dim,
        detector=identity,
        image_root=str(root.resolve()),
        command=shlex.join(words),
        extras={f"regions/{name}": EXTRAS[name] for name in survey.kind.extras},
    )


def _check_sizes(job: ImportJob, source: Source, survey: Survey, header: Header) -> None:
    """Raises UserError where nothing says how large a picture is: the first is taken for all."""
    path = next(iter(survey.entries))
    there = source.sized or job.images is not None or (Path(header.image_root) / path).is_file()
    if not there:
        raise UserError(
            f"{job.source} does not say how large its pictures are, and {path} is not beside it;"
            f" name the folder of the pictures with --images"
        )


def _fill(
    tasks: list[Task], source: Source, survey: Survey, progress: Callable[[int, int], None]
) -> Times:
    times = Times()
    total = sum(len(task.paths) for task in tasks)
    done = 0
    progress(done, total)
    for task in tasks:
        kept, todo = task.left()
        with times.spent("read"):
            rows, failures = _rows(task.header, todo, source, survey.entries)
        with times.spent("write"):
            task.write(kept, rows, failures)
        done += len(task.paths)
        progress(done, total)
    return times


def _rows(
    header: Header, paths: tuple[str, ...], source: Source, entries: Mapping[str, Entry]
) -> tuple[Rows, list[Failure]]:
    """The rows of the pictures that can be used, in the order of `paths`, and the others."""
    rows = Rows.empty(header.k, header.dim, len(paths), header.extras)
    failed: dict[int, Failure] = {}
    there = [i for i, path in enumerate(paths) if path in entries]
    for i in sorted(there, key=lambda i: entries[paths[i]].place):
        entry = entries[paths[i]]
        try:
            _put(rows, i, paths[i], source, entry, header)
        except (Broken, OverflowError) as error:
            failed[i] = _failure(paths[i], str(error), entry)
    for i in set(range(len(paths))) - set(there):
        failed[i] = Failure(paths[i], "is in the source no more")
    good = [i for i in range(len(paths)) if i not in failed]
    return rows.take(good), [failed[i] for i in sorted(failed)]


def _put(rows: Rows, i: int, path: str, source: Source, entry: Entry, header: Header) -> None:
    """Raises Broken, OverflowError."""
    found = source.read(entry)
    size = found.size or _size_of(Path(header.image_root) / path)
    made, extras = regions(found, header.k, size, entry.kind.ranked)
    rows.put(i, path, made)
    for name, values in extras.items():
        rows.arrays[f"regions/{name}"][i, : made.count] = values


def _size_of(picture: Path) -> tuple[int, int]:
    width, height = images.size(picture)
    if not width:
        raise Broken(f"has no size in the source, and {picture} cannot be asked for it")
    return width, height


def _notes(job: ImportJob, survey: Survey, k: int) -> list[str]:
    notes = []
    if not survey.kind.ranked:
        notes.append("Order: the source's own, not by confidence")
    more = [entry.regions for entry in survey.entries.values() if entry.regions > k]
    if more:
        notes.append(
            f"Cut: {len(more):,} pictures have more than {k} regions, up to {max(more)}; the first"
            f" {k} are kept"
        )
    if survey.loose:
        notes.append(
            f"Matched loosely: {len(survey.loose):,} ids differ from their pictures in letter case,"
            f" Unicode form or slashes, first {survey.loose[0]}"
        )
    if survey.unmatched:
        notes.append(
            f"Not matched: {len(survey.unmatched):,} ids name no picture in {job.images}, or more"
            f" than one, first {survey.unmatched[0]}; they stand for paths as they are"
        )
    return notes
