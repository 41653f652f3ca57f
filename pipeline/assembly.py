"""What every filler of a feature file shares: lock, plan, what is left to do, the end.

A filler (`extract` with a detector, `imports` with other people's files) writes
whole shards and nothing else, so that a kill at any instant costs one shard.
"""

import contextlib
import csv
import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cqr.atomic import LONGEST, alone, begun, replacing
from cqr.errors import UserError
from cqr.listing import Failure, is_utf8, readable
from cqr.pipeline import sums
from cqr.pipeline.feature_file import join, shards_folder
from cqr.pipeline.plan import Plan, shard_name
from cqr.pipeline.shards import BadShard, Header, Rows, read_shard, shard_contents, write_shard
from cqr.remote import check, is_remote


@dataclass
class Times:
    """Seconds waited for pictures, spent in the detector, and spent writing.

    And how many pictures of 16-bit grey did not say their range, which was `guessed`.
    """

    read: float = 0.0
    detect: float = 0.0
    write: float = 0.0
    guessed: int = 0

    @contextlib.contextmanager
    def spent(self, on: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, on, getattr(self, on) + time.perf_counter() - start)

    def add(self, other: "Times") -> None:
        self.read += other.read
        self.detect += other.detect
        self.write += other.write
        self.guessed += other.guessed


@dataclass(frozen=True)
class Task:
    """One shard to compute: `paths` are all that belong to it.

    With `keep_rows`, the file is there already, and only the pictures that
    failed in it are tried again.
    """

    file: Path
    paths: tuple[str, ...]
    header: Header
    keep_rows: bool = False

    def left(self) -> tuple[Rows | None, tuple[str, ...]]:
        """The rows that are kept, and the paths that are to do."""
        if not self.keep_rows:
            return None, self.paths
        rows, failed = read_shard(self.file, self.header)
        return rows, tuple(failure.path for failure in failed)

    def write(self, kept: Rows | None, rows: Rows, failures: Sequence[Failure]) -> None:
        """Write the shard: `kept` is what `left` gave, the others are what was done since."""
        write_shard(self.file, self.header, kept.merged(rows) if kept else rows, failures)


@dataclass(frozen=True)
class Summary:
    """What filling a feature file ended with.

    Attributes:
        out: the feature file.
        rows: pictures in it.
        computed: pictures done in this run, failed ones included.
        kept: pictures done before, failed ones included.
        failures: what could not be used, listed in `failures_file` if there is any.
        gone: paths that have rows, or failed, but are no more; rows stay.
        notes: what else the user should know, a sentence each.
        times: summed over all workers.
        bytes: size on disk.
    """

    out: Path
    rows: int
    computed: int
    kept: int
    failures: list[Failure]
    failures_file: Path
    gone: list[str]
    notes: list[str]
    times: Times
    bytes: int


def check_out(out: Path) -> None:
    """Raises UserError if `out` cannot be the name of a feature file."""
    check(out)
    folder = not is_remote(out) and os.path.isdir(out)  # Path's raises where a name is too long
    if out.suffix != ".h5" or folder:
        raise UserError(f"{out} cannot be a feature file; give --out a name that ends in .h5")
    longest = _failures_file(out).name  # of all names that stand beside it
    if len(os.fsencode(longest)) > LONGEST:
        raise UserError(
            f"{out} has a name of {len(os.fsencode(out.name))} bytes, and {longest} beside it would"
            f" be too long for a file; give a shorter --out"
        )


def check_names(*paths: Path | None) -> None:
    """Raises UserError if a path cannot be recorded in a feature file."""
    for path in paths:
        if path is not None and not is_utf8(str(path.resolve())):
            name = readable(str(path.resolve()))
            raise UserError(f"the name of {name} is not valid UTF-8; rename it")


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from `out`, and clear away what killed ones left half written.

    Where `out` is remote, only those of this machine are kept from it.

    Raises:
        UserError: another process is at it, or the folder cannot be written.
    """
    if is_remote(out):
        digest = hashlib.sha256(str(out).encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir(), f"cqr-{digest}")
        with alone(lock, f"writing {out}", "choose another --out"):
            yield
        return
    folder = shards_folder(out)
    with alone(folder, f"writing {out}", "choose another --out"):
        try:
            _remove_leftovers(folder, out)
            yield
        finally:
            _remove_leftovers(folder, out)


def _remove_leftovers(folder: Path, out: Path) -> None:
    ours = tuple(begun(file.name) for file in (out, _failures_file(out)))
    for file in out.parent.iterdir():
        if file.suffix == ".partial" and file.name.startswith(ours):
            file.unlink(missing_ok=True)
    for file in folder.glob(".*.partial"):
        file.unlink(missing_ok=True)


def _failures_file(out: Path) -> Path:
    return out.with_suffix(".failures.csv")


# --- the plan ------------------------------------------------------------------------------------


def planned(
    out: Path, header: Header, paths: Sequence[str], size: int, overwrite: bool = False
) -> Plan:
    """The plan that is there, with `paths` that are new to it; or a new one.

    Its header has the command of this run: that makes the file as it becomes now.

    Raises:
        UserError: what is there was made with other settings, or not by a plan.
    """
    folder = shards_folder(out)
    old = None if overwrite else Plan.load(folder)
    if old is not None:
        _check_same(out, old.header, header)
        same = dataclasses.replace(old.header, command=header.command)
        plan = Plan(same, old.shards).with_added(paths, size)
        if plan != old:
            plan.save(folder)
        return plan
    if out.exists() and not overwrite:
        raise UserError(
            f"{out} is there, but not the plan in {folder} that it was made by; start again"
            f" with --overwrite, or choose another --out"
        )
    plan = Plan(header, ()).with_added(paths, size)
    plan.save(folder)  # from here on, shards that lie there belong to another set
    out.unlink(missing_ok=True)
    _failures_file(out).unlink(missing_ok=True)
    for file in folder.glob("*.h5"):
        file.unlink()
    return plan


def _check_same(out: Path, old: Header, new: Header) -> None:
    """Raises UserError if what is there is of another folder, or has other numbers."""
    if old.image_root != new.image_root:
        what = f"from the folder {old.image_root}, not {new.image_root}"
    elif old.k != new.k:
        what = f"with --k {old.k}, not {new.k}"
    elif old.settings != new.settings:
        before, now = ({"dim": h.dim, "extras": h.extras, **h.detector} for h in (old, new))
        keys = sorted(before.keys() | now.keys())
        differ = [key for key in keys if before.get(key) != now.get(key)]
        what = f"with other settings ({', '.join(differ)} differ) by {old.command}"
    else:
        return
    raise UserError(
        f"{out} was begun {what}; start again with --overwrite, or keep both with another --out"
    )


def unfinished(out: Path, plan: Plan, retry_failed: bool = False) -> list[Task]:
    """What is left to compute."""
    tasks = []
    there = [shards_folder(out) / shard_name(index) for index in range(len(plan.shards))]
    sums.try_at_once(there)
    for index, paths in enumerate(plan.shards):
        file = shards_folder(out) / shard_name(index)
        try:
            done, failed = shard_contents(file, plan.header)
        except BadShard:
            done, failed = [], []
        whole = {*done, *(failure.path for failure in failed)} == set(paths)
        if not whole or (failed and retry_failed):
            tasks.append(Task(file, paths, plan.header, keep_rows=whole))
    return tasks


# --- the end -------------------------------------------------------------------------------------


def finished(
    out: Path,
    source: Path,
    plan: Plan,
    tasks: Sequence[Task],
    there: Sequence[str],
    refused: Sequence[Failure],
    notes: Sequence[str],
    times: Times,
) -> Summary:
    """Join the shards, once every one of `plan` is there, and list what could not be used.

    Args:
        source: what the pictures came from.
        tasks: what was computed in this run.
        there: the paths that `source` has now.
        refused: what is not in the plan and could not be used.
        notes: for the summary.

    Raises:
        UserError: nothing at all could be used, or the disk is full.
    """
    files = [shards_folder(out) / shard_name(index) for index in range(len(plan.shards))]
    try:
        failures = [f for file in files for f in shard_contents(file, plan.header)[1]]
    except BadShard as error:
        raise UserError(f"{error} though it was just written; run the same command again") from None
    failures += refused
    _write_failures(_failures_file(out), failures)
    named = len(plan.paths) + len(refused)
    if len(failures) == named:
        first = failures[0]
        raise UserError(
            f"none of the {named} pictures in {source} can be used (the first, {first.path!r},"
            f" {first.reason}; all are in {_failures_file(out)}); mend them, then run the same"
            f" command with --retry-failed"
        )
    with times.spent("write"):
        rows = join(out, plan.header, files)
    present = set(there)
    computed = sum(len(task.paths) for task in tasks)
    return Summary(
        out=out,
        rows=rows,
        computed=computed,
        kept=len(plan.paths) - computed,
        failures=failures,
        failures_file=_failures_file(out),
        gone=[path for path in plan.paths if path not in present],
        notes=list(notes),
        times=times,
        bytes=sum(file.stat().st_size for file in [out, *files]),
    )


def _write_failures(file: Path, failures: Sequence[Failure]) -> None:
    """The file lists what could not be used; there is none if everything could."""
    if not failures:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Failure._fields)
        writer.writerows(failures)
