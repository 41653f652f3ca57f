"""Stage one with a fake detector: the same file, whatever happens on the way."""

import csv
import dataclasses
import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import command_line
import cqr.atomic
import fake_detector
from cqr.errors import UserError
from cqr.pipeline import compute, images
from cqr.pipeline import extract as module
from cqr.pipeline.assembly import Summary, Task
from cqr.pipeline.detectors import Choice
from cqr.pipeline.extract import Job, Watcher, default_out, extract
from cqr.pipeline.feature_file import open_features, shards_folder
from cqr.pipeline.plan import Plan, shard_size
from fake_detector import DIM, FakeDetector, FakeSpec, picture_files

K = 18
FAKE = fake_detector.__file__


@pytest.fixture
def folder(tmp_path) -> Path:
    picture_files(tmp_path / "pictures", 12)
    return tmp_path / "pictures"


def job(folder: Path, **changes) -> Job:
    start = Job(folder, folder.parent / "out" / "x.h5", K, FakeSpec(), shard=5, workers=1)
    return dataclasses.replace(start, **changes)


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        extract(job)
    return str(caught.value)


def contents(out: Path) -> dict:
    """All datasets and attributes of a feature file and its shards, but what differs by run."""
    found = {}
    files = sorted(shards_folder(out).glob("*.h5"))
    for file in [out, *files]:
        with h5py.File(file) as opened:
            attributes = {k: v for k, v in opened.attrs.items() if k not in ("created", "set")}
            found[file.name] = attributes
            opened.visititems(
                lambda name, item, file=file: (
                    found.update({(file.name, name): item[()].tolist()})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
    return found


def marks(out: Path) -> dict[str, tuple[int, int]]:
    """What changes if a shard is written again."""
    return {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in shards_folder(out).glob("*.h5")
    }


def failures(out: Path) -> list[list[str]]:
    with out.with_suffix(".failures.csv").open(newline="") as stream:
        return list(csv.reader(stream))


# --- the plain case ----------------------------------------------------------------------------


def test_rows_are_what_the_detector_gives(folder):
    summary = extract(job(folder))
    file = open_features(summary.out)
    names = sorted(path.name for path in folder.iterdir())
    assert file.paths == names
    assert [shard.rows for shard in file.shards] == [5, 5, 2]
    with h5py.File(summary.out) as opened:
        for i, name in enumerate(names):
            with Image.open(folder / name) as image:
                regions = FakeDetector(None)([np.array(image)], K)[0]
            half = regions.features.astype(np.float16)
            assert np.array_equal(opened["regions/features"][i], half)
            assert np.array_equal(opened["regions/boxes"][i], regions.boxes)
            assert np.array_equal(opened["regions/scores"][i], regions.scores)
            assert opened["regions/count"][i] == regions.count
            assert np.array_equal(opened["whole/features"][i], regions.whole.astype(np.float16))
            assert opened["images/size"][i].tolist() == [regions.width, regions.height]
    assert (file.k, file.dim, file.image_root) == (K, DIM, str(folder))
    assert file.detector == {"name": "fake", "config": None}
    assert file.header.command == f"cqr extract --images {folder} --k {K} --detector fake"
    assert (summary.rows, summary.computed, summary.kept, summary.failures) == (12, 12, 0, [])
    assert not summary.failures_file.exists()
    assert summary.bytes == sum(
        file.stat().st_size for file in [summary.out, *shards_folder(summary.out).glob("*.h5")]
    )
    assert min(summary.times.read, summary.times.detect, summary.times.write) > 0


def test_progress_and_choice_are_told(folder):
    class Notes(Watcher):
        def __init__(self):
            self.seen = []

        def chosen(self, choice):
            self.seen.append(choice.spec)

        def progress(self, done, total):
            self.seen.append((done, total))

    notes = Notes()
    extract(job(folder, batch=3), notes)
    assert notes.seen[:2] == [FakeSpec(), (0, 12)]
    assert notes.seen[-1] == (12, 12)
    assert notes.seen[1:] == sorted(notes.seen[1:])


def test_batches_are_full_and_of_one_size():
    sizes = [(8, 12), (12, 8), (8, 12), (0, 0), (8, 12), (12, 8)]
    detector = FakeDetector(None)
    batches = compute.full_batches(sizes, detector.network_size, 2)
    assert batches == [[3], [0, 2], [4], [1, 5]]
    huge = [(10_000, 9_000), (10_001, 9_000), (2, 1), (3, 1)]
    assert compute.full_batches(huge, detector.network_size, 4) == [[0], [1], [2, 3]]


def test_any_number_of_workers_and_any_batch_give_the_same_bytes(tmp_path, folder):
    (folder / "p003.png").write_bytes(b"no picture")
    one = job(folder, out=tmp_path / "one" / "x.h5")
    two = job(folder, out=tmp_path / "two" / "x.h5", workers=2, batch=1)
    extract(one)
    plan = Plan.load(shards_folder(one.out))
    shards_folder(two.out).mkdir(parents=True)
    plan.save(shards_folder(two.out))  # else the sets' ids would differ
    extract(two)
    names = ["x.failures.csv", *(f"x.shards/{name}" for name in sorted(marks(one.out)))]
    assert len(names) == 4
    for name in names:
        assert (one.out.parent / name).read_bytes() == (two.out.parent / name).read_bytes(), name
    assert contents(one.out) == contents(two.out)  # HDF5 puts the time into virtual datasets


def test_k_of_half_is_the_first_half(tmp_path, folder):
    extract(job(folder))
    extract(job(folder, out=tmp_path / "half.h5", k=9))
    with h5py.File(job(folder).out) as whole, h5py.File(tmp_path / "half.h5") as half:
        for name in ("features", "boxes", "scores"):
            assert np.array_equal(whole[f"regions/{name}"][:, :9], half[f"regions/{name}"][:])


def test_names_that_need_care(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    names = [
        "a b.png",
        "a,b.png",
        "a\nb.png",
        "ü.png",
        "same.png",
        "same.PNG",
        "same.jpg",
        "SAME.png",
    ]
    for name in names:
        Image.new("RGB", (9, 9)).save(folder / name)
    bad = os.fsdecode(b"\xffbad,\n.png")
    Image.new("RGB", (9, 9)).save(folder / bad)
    summary = extract(job(folder))
    assert sorted(open_features(summary.out).paths) == sorted(names)
    assert failures(summary.out) == [
        ["path", "reason"],
        ["\\xffbad,\n.png", "name is not valid UTF-8"],
    ]


def test_default_out(tmp_path, monkeypatch):
    (tmp_path / "fashion").mkdir()
    monkeypatch.chdir(tmp_path / "fashion")
    assert default_out(Path(".")) == Path("artifacts/fashion.h5")
    assert default_out(Path("../fashion/")) == Path("artifacts/fashion.h5")
    assert default_out(Path("/")) == Path("artifacts/root.h5")


def test_shard_size():
    assert [shard_size(n) for n in (1, 200, 2000, 34_000, 160_000, 10**6)] == [
        16, 25, 250, 256, 400, 512,
    ]  # fmt: skip


# --- pictures that cannot be used --------------------------------------------------------------


def test_failures_are_listed_and_do_not_cost_the_others(folder):
    (folder / "p001.png").write_bytes(b"")
    Image.new("RGB", (8, 12), "red").save(folder / "p004.png")
    summary = extract(job(folder))
    assert failures(summary.out) == [
        ["path", "reason"],
        ["p001.png", "is empty"],
        ["p004.png", "the detector failed on it (too red for me)"],
    ]
    assert [tuple(row) for row in failures(summary.out)[1:]] == summary.failures
    assert summary.rows == 10
    assert len(open_features(summary.out).paths) == 10


def test_float16_overflow_is_a_failure(folder):
    Image.new("RGB", (5, 12)).save(folder / "p004.png")
    summary = extract(job(folder, detector=FakeSpec(config="huge")))
    assert summary.failures == [
        ("p004.png", "its feature 1e+05 is more than float16 holds (65504)")
    ]


def test_retry_failed_computes_only_those(folder, monkeypatch, tmp_path):
    shutil.copytree(folder, tmp_path / "good" / "pictures")
    (folder / "p001.png").write_bytes(b"")
    (folder / "p007.png").write_bytes(b"")
    extract(job(folder))
    before = marks(job(folder).out)
    shutil.copy(tmp_path / "good" / "pictures" / "p001.png", folder / "p001.png")
    assert len(extract(job(folder)).failures) == 2  # not asked to
    assert marks(job(folder).out) == before

    log = tmp_path / "log"
    monkeypatch.setenv("FAKE_LOG", str(log))
    summary = extract(job(folder, retry_failed=True))
    assert log.read_text() == "x\n"
    assert [failure.path for failure in summary.failures] == ["p007.png"]
    after = marks(job(folder).out)
    assert [name for name in before if before[name] == after[name]] == ["00002.h5"]

    shutil.copy(tmp_path / "good" / "pictures" / "p007.png", folder / "p007.png")
    extract(job(folder, retry_failed=True))
    assert not summary.failures_file.exists()
    fresh = job(folder, out=tmp_path / "fresh" / "x.h5")
    extract(fresh)
    assert contents(job(folder).out) == contents(fresh.out)


def test_no_picture_can_be_used(folder):
    for file in folder.iterdir():
        file.write_bytes(b"x")
    out = job(folder).out
    assert refusal(job(folder)) == (
        f"none of the 12 pictures in {folder} can be used (the first, 'p000.png', is not a picture"
        f" of a known format; all are in {out.with_suffix('.failures.csv')}); mend them, then run"
        f" the same command with --retry-failed"
    )
    assert not out.exists()
    assert len(failures(out)) == 13


def test_a_detector_that_always_fails_ends_the_run(folder):
    picture_files(folder, 40)
    message = refusal(job(folder, detector=FakeSpec(config="broken"), shard=40))
    assert message == (
        "the detector failed on 16 pictures in a row, the last one p023.png (too red for me); try"
        " another --detector"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_want_of_memory_ends_the_run(folder, workers):
    message = refusal(job(folder, detector=FakeSpec(config="memory"), workers=workers, shard=6))
    assert message in [
        f"memory or the device gave out at {path} (cannot allocate); run the same command again"
        f" with a smaller --batch, fewer --workers or --device cpu: finished shards are kept"
        for path in ("p001.png", "p007.png")
    ]


# --- only some pictures ------------------------------------------------------------------------


def list_of(folder: Path, *lines: str) -> Path:
    file = folder.parent / "list.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_only_listed_pictures_are_taken(folder):
    (folder / "p003.png").write_bytes(b"")
    names = list_of(folder, "p007.png", "./p001.png", "gone.png", "p003.png", "p001.png")
    summary = extract(job(folder, list=names))
    file = open_features(summary.out)
    assert file.paths == ["p001.png", "p007.png"]
    assert failures(summary.out)[1:] == [
        ["p003.png", "is empty"],
        ["gone.png", f"is listed in {names} but not there"],
    ]
    assert summary.notes == [f"Repeated: 1 of the lines of {names}, counted once"]
    assert file.header.command == (
        f"cqr extract --images {folder} --k {K} --list {names} --detector fake"
    )


def test_a_list_that_grows_and_shrinks(folder):
    names = list_of(folder, "p001.png", "p002.png", "p003.png")
    out = extract(job(folder, list=names, shard=2)).out
    before = marks(out)
    list_of(folder, "p000.png", "p003.png", "p002.png")
    (folder / "p002.png").unlink()
    summary = extract(job(folder, list=names, shard=2))
    assert (summary.computed, summary.rows, summary.failures) == (1, 4, [])
    assert summary.gone == ["p002.png"]
    assert summary.notes == [
        "No longer listed: 1, first p001.png; their rows stay until --overwrite"
    ]
    assert before.items() < marks(out).items()
    assert open_features(out).paths == ["p001.png", "p002.png", "p003.png", "p000.png"]


def test_the_recorded_command_is_that_of_the_last_run(folder):
    out = extract(job(folder, list=list_of(folder, "p001.png"))).out
    before = marks(out)
    extract(job(folder))
    header = open_features(out).header
    assert header.command == f"cqr extract --images {folder} --k {K} --detector fake"
    assert before.items() < marks(out).items()
    assert len(open_features(out).paths) == 12


@pytest.mark.parametrize("retry", [False, True])
def test_a_listed_picture_that_has_come_is_taken(folder, retry):
    names = list_of(folder, "p001.png", "new.png")
    assert len(extract(job(folder, list=names)).failures) == 1
    shutil.copy(folder / "p000.png", folder / "new.png")
    summary = extract(job(folder, list=names, retry_failed=retry))
    assert (summary.rows, summary.failures) == (2, [])
    assert not summary.failures_file.exists()


def test_no_listed_picture_is_there(folder):
    names = list_of(folder, "x.png", "y.png")
    out = job(folder).out
    assert refusal(job(folder, list=names)) == (
        f"none of the 2 pictures in {folder} can be used (the first, 'x.png', is listed in {names}"
        f" but not there; all are in {out.with_suffix('.failures.csv')}); mend them, then run the"
        f" same command with --retry-failed"
    )


# --- going on ----------------------------------------------------------------------------------


def test_rerunning_computes_nothing(folder, tmp_path, monkeypatch):
    first = extract(job(folder))
    before = marks(first.out), contents(first.out)
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    again = extract(job(folder, shard=3))
    assert (again.computed, again.kept, again.rows) == (0, 12, 12)
    assert (marks(first.out), contents(first.out)) == before
    assert not (tmp_path / "log").exists()


def test_added_and_gone_pictures(folder):
    out = extract(job(folder)).out
    before = marks(out)
    picture_files(folder, 15)
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    (folder / "p003.png").unlink()
    summary = extract(job(folder))
    assert summary.gone == ["p003.png"]
    assert (summary.computed, summary.rows) == (4, 16)
    assert before.items() < marks(out).items()
    added = ["a.png", "p012.png", "p013.png", "p014.png"]
    assert open_features(out).paths[12:] == added


def test_damaged_and_lost_shards_are_computed_again(folder):
    out = extract(job(folder)).out
    expected = contents(out)
    (shards_folder(out) / "00000.h5").write_bytes(b"x")
    (shards_folder(out) / "00002.h5").unlink()
    assert extract(job(folder)).computed == 7
    assert contents(out) == expected


def test_other_settings_are_refused(folder, tmp_path):
    out = extract(job(folder)).out
    end = "; start again with --overwrite, or keep both with another --out"
    before = contents(out)
    assert refusal(job(folder, k=9)) == f"{out} was begun with --k 18, not 9{end}"
    other = FakeSpec(config="other")
    assert refusal(job(folder, detector=other)) == (
        f"{out} was begun with other settings (config differ) by cqr extract --images {folder}"
        f" --k 18 --detector fake{end}"
    )
    picture_files(tmp_path / "elsewhere", 2)
    assert refusal(job(tmp_path / "elsewhere", out=out)) == (
        f"{out} was begun from the folder {folder}, not {tmp_path / 'elsewhere'}{end}"
    )
    assert contents(out) == before

    extract(job(folder, k=9, detector=other, overwrite=True, shard=10))
    assert open_features(out).k == 9
    assert sorted(marks(out)) == ["00000.h5", "00001.h5"]


def test_overwrite_that_is_killed_does_not_keep_old_shards(folder, monkeypatch):
    out = extract(job(folder)).out
    kill_at(monkeypatch, 4)  # the plan is there, the first shard is not
    with pytest.raises(Killed):
        extract(job(folder, overwrite=True))
    monkeypatch.undo()
    assert extract(job(folder)).computed == 12
    assert len(open_features(out).paths) == 12


def test_a_file_without_its_plan_is_not_touched(folder):
    out = job(folder).out
    out.parent.mkdir()
    out.write_text("somebody's")
    folder_ = shards_folder(out)
    assert refusal(job(folder)) == (
        f"{out} is there, but not the plan in {folder_} that it was made by; start again with"
        f" --overwrite, or choose another --out"
    )
    assert out.read_text() == "somebody's"
    extract(job(folder, overwrite=True))
    (folder_ / "plan.json").write_text("{")
    assert refusal(job(folder)).startswith(f"{folder_ / 'plan.json'} cannot be read (")
    (folder_ / "plan.json").write_text('{"format": "cqr-plan", "version": 2}')
    assert refusal(job(folder)) == (
        f"{folder_ / 'plan.json'} is of version 2, this cqr reads 1: update cqr, or start again"
        f" with --overwrite"
    )


# --- arguments ---------------------------------------------------------------------------------


def test_arguments_that_cannot_be(folder, tmp_path):
    assert refusal(job(folder, k=0)) == "--k is 0, it must be at least 1"
    assert refusal(job(folder, k=25)) == "--k 25 is not 1 to 24"
    name = tmp_path / "x.hdf"
    assert refusal(job(folder, out=name)) == (
        f"{name} cannot be a feature file; give --out a name that ends in .h5"
    )
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "x.h5"
    assert refusal(job(folder, out=below)) == (
        f"cannot write {shards_folder(below)}: Not a directory; choose another --out"
    )
    bad = tmp_path / os.fsdecode(b"bad\xff")
    picture_files(bad, 1)
    assert refusal(job(bad)) == (f"the name of {tmp_path}/bad\\xff is not valid UTF-8; rename it")
    assert not (tmp_path / "out").exists()


def test_two_at_once_are_refused(folder):
    out = extract(job(folder)).out
    with (shards_folder(out) / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refusal(job(folder)) == (
            f"another cqr is writing {out}; wait for it, or choose another --out"
        )


# --- how many processes ------------------------------------------------------------------------


def tasks_of(number: int, pictures: int) -> list[Task]:
    return [Task(Path(str(i)), ("p",) * pictures, None) for i in range(number)]


def test_processes_on_a_cpu(folder, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for tasks, asked, expected in (
        (tasks_of(10, 256), None, 8),
        (tasks_of(10, 256), 3, 3),
        (tasks_of(2, 256), None, 2),
        (tasks_of(10, 20), None, 3),
        (tasks_of(10, 1), None, 1),
        (tasks_of(10, 1), 2, 2),
        ([], None, 1),
    ):
        specs, on_gpu = module._specs(job(folder, workers=asked), FakeSpec(), tasks)
        assert specs == [FakeSpec()] * expected
        assert not on_gpu


def test_processes_on_gpus(folder, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(module, "find_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, asked, expected in (
        ("cuda", None, ["cuda:0", "cuda:1"]),
        ("auto", 3, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", 1, ["cuda"]),
        ("cuda:0", None, ["cuda:0"]),
    ):
        spec = FakeSpec(device=device)
        specs, on_gpu = module._specs(job(folder, workers=asked), spec, tasks_of(4, 1))
        assert [spec.device for spec in specs] == expected
        assert on_gpu


# --- interrupted at any step -------------------------------------------------------------------


class Killed(BaseException):
    pass


class _Os:
    """The os module, but for an end at the given one of the steps that reach the disk."""

    def __init__(self, at: int, error: BaseException):
        self.left = at
        self.error = error

    def __getattr__(self, name):
        if name in ("fsync", "replace"):
            if self.left == 0:
                raise self.error
            self.left -= 1
        return getattr(os, name)


def kill_at(monkeypatch, step: int, error: BaseException | None = None) -> None:
    monkeypatch.setattr(cqr.atomic, "os", _Os(step, error or Killed()))


STEPS = 3 * 6  # fsync, replace, fsync of the folder: for plan, three shards, failures, joined file


@pytest.mark.parametrize("full", [False, True])
def test_an_end_at_any_step_is_made_good(folder, tmp_path, monkeypatch, full):
    (folder / "p003.png").write_bytes(b"no picture")
    plain = job(folder, out=tmp_path / "plain" / "x.h5")
    extract(plain)
    for step in range(0, STEPS + 1, 4 if full else 1):
        out = tmp_path / str(step) / "x.h5"
        with monkeypatch.context() as patch:
            kill_at(patch, step, OSError(errno.ENOSPC, "No space left on device") if full else None)
            if step >= STEPS:
                extract(job(folder, out=out))
            elif full:
                assert refusal(job(folder, out=out)).endswith(
                    ": No space left on device; make room or choose another place"
                )
            else:
                with pytest.raises(Killed):
                    extract(job(folder, out=out))
        if out.exists():  # then it is whole
            open_features(out)
        before = marks(out)
        extract(job(folder, out=out))
        assert before.items() <= marks(out).items()
        assert contents(out) == contents(plain.out)
        assert failures(out) == failures(plain.out)
        assert not list(out.parent.rglob("*.partial"))


def test_what_killed_runs_left_is_cleared_away(folder):
    out = job(folder).out
    shards_folder(out).mkdir(parents=True)
    ours = [".x.h5.1a2b.partial", ".x.failures.csv.1a2b.partial", "x.shards/.00001.h5.1a.partial"]
    others = [".y.h5.1a2b.partial", "x.partial"]
    for name in ours + others:
        (out.parent / name).touch()
    extract(job(folder))
    assert not any((out.parent / name).exists() for name in ours)
    assert all((out.parent / name).exists() for name in others)


# --- processes ---------------------------------------------------------------------------------


def start(folder: Path, out: Path, *options: str) -> subprocess.Popen:
    words = ["extract", "--images", str(folder), "--k", str(K), "--shard", "5", "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, FAKE, *words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_SLOW": "1"},
        start_new_session=True,
    )


def wait_for_a_shard(out: Path, process: subprocess.Popen) -> None:
    ends = time.monotonic() + 100
    while not marks(out):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < ends, "no shard came"
        time.sleep(0.005)


def processes_with(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if word.encode() in environment:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_sigkill_at_random_moments(tmp_path, workers, monkeypatch):
    folder = tmp_path / "pictures"
    picture_files(folder, 60)
    (folder / "p030.png").write_bytes(b"no picture")
    plain = job(folder, out=tmp_path / "plain" / "x.h5")
    extract(plain)
    out = tmp_path / "killed" / "x.h5"
    monkeypatch.setenv("FAKE_TAG", tag := f"{tmp_path}-{workers}")
    chance = random.Random(workers)
    kept: dict[str, tuple[int, int]] = {}
    for _ in range(2):
        process = start(folder, out, "--workers", str(workers))
        wait_for_a_shard(out, process)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
        ends = time.monotonic() + 60
        while processes_with(tag):  # workers notice that their parent is gone
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert kept.items() <= marks(out).items()
        kept = marks(out)
    process = start(folder, out, "--workers", str(workers))
    assert process.wait(60) == 0
    process.communicate()
    assert kept.items() <= marks(out).items()
    assert contents(out) == contents(plain.out)
    assert failures(out) == failures(plain.out)
    assert not list(out.parent.rglob("*.partial"))


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGTERM, 2), (signal.SIGINT, 2)]
)
def test_interrupts_end_in_one_sentence(tmp_path, workers, number, monkeypatch):
    folder = tmp_path / "pictures"
    picture_files(folder, 60)
    out = tmp_path / "out" / "x.h5"
    monkeypatch.setenv(
        "FAKE_HOLD", "20"
    )  # pictures of a process: shards are whole, none is the last
    monkeypatch.setenv("FAKE_TAG", tag := f"{tmp_path}-end")
    process = start(folder, out, "--workers", str(workers))
    wait_for_a_shard(out, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: workers get it, too
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last == "Interrupted: what was finished is kept; run the same command to go on."
    assert marks(out)
    assert not out.exists()
    assert not list(out.parent.rglob("*.partial"))
    assert processes_with(tag) == []


def test_a_killed_worker_is_said(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    picture_files(folder, 60)
    out = tmp_path / "out" / "x.h5"
    monkeypatch.setenv(
        "FAKE_HOLD", "20"
    )  # pictures of a process: shards are whole, none is the last
    process = start(folder, out, "--workers", "2")
    wait_for_a_shard(out, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [
        int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == (
        "Error: a worker process was killed, most likely for want of memory; run the same command"
        " again with fewer --workers or a smaller --batch: finished shards are kept"
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path, workers):
    folder = tmp_path / "pictures"
    picture_files(folder, 20)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        process = start(folder, disk / "x.h5", "--workers", str(workers))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Traceback" not in errors
        assert errors.splitlines()[-1].startswith(f"Error: cannot write {disk}/x.shards/0000")
        assert errors.endswith(": No space left on device; make room or choose another place\n")
        kept = marks(disk / "x.h5")
        assert kept
        subprocess.run(["mount", "-o", "remount,size=4M", str(disk)], check=True)
        assert extract(job(folder, out=disk / "x.h5")).rows == 20
        assert kept.items() < marks(disk / "x.h5").items()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- the command -------------------------------------------------------------------------------


def test_the_command_as_it_stands(tmp_path):
    picture_files(tmp_path / "fashion", 6)
    (tmp_path / "fashion" / "a\nb.jpg").write_bytes(b"")
    run = subprocess.run(
        [sys.executable, FAKE, "extract", "--images", "fashion/", "--k", "18"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("Detector: fake (it is a test)\n")
    lines = run.stdout.splitlines()
    assert lines[0].startswith("Wrote artifacts/fashion.h5: 6 pictures, ")
    assert lines[1] == "Computed 7 pictures in this run, kept 0"
    assert lines[2].startswith("Time: read ")
    found = open_features(tmp_path / "artifacts" / "fashion.h5")
    assert lines[3:] == [
        "Failed: 1, listed in artifacts/fashion.failures.csv",
        "  a\\nb.jpg is empty",
        f"Next: cqr search --features artifacts/fashion.h5 --image {found.paths[0]}",
    ]
    assert found.image_root == str(tmp_path / "fashion")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "no"], "no does not exist; name a folder of pictures with --images"),
        (["--images", ".", "--k", "0"], "--k is 0, it must be at least 1"),
        (
            ["--images", ".", "--config", "c"],
            "--config and --weights need a --detector that they belong to; name it",
        ),
    ],
)
def test_errors_are_one_sentence(tmp_path, options, message):
    run = command_line.cqr("extract", *options)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", f"Error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_step_down_is_recorded(folder, monkeypatch):
    choice = Choice(FakeSpec(), "nothing better", "these are no objects")
    monkeypatch.setattr(module, "choose", lambda folder, device: choice)
    summary: Summary = extract(job(folder, detector=None))
    with h5py.File(summary.out) as file:
        assert file.attrs["warning"] == "these are no objects"


def test_a_picture_that_changes_between_header_and_pixels(folder, monkeypatch):
    """Batches go by headers; should one lie, its batch is done one by one."""
    monkeypatch.setattr(images, "size", lambda path: (8, 12))
    assert extract(job(folder)).rows == 12
