"""Shards by Ray: the same bytes as without, whatever is killed on the way."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ray_extraction
from cqr.errors import UserError
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import shards_folder
from fake_detector import FakeSpec, picture_files
from ray_extraction import files, same_plan

SHARED = Path(__file__).parents[1] / "shared"

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'cqr[ray]')"
)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def job(tmp_path: Path, out: str, engine: str, **changes) -> Job:
    settings = {"detector": FakeSpec(), "shard": 5, "workers": 1, **changes}
    return Job(tmp_path / "pictures", tmp_path / out / "x.h5", 18, engine=engine, **settings)


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        extract(job)
    assert type(caught.value) is UserError
    return str(caught.value)


# --- what is refused ---------------------------------------------------------------------------


def test_an_unknown_engine(tmp_path):
    assert (
        refusal(job(tmp_path, "out", "spark"))
        == "no engine is named spark; choose --engine from local, ray"
    )


def test_ray_is_absent(tmp_path, monkeypatch):
    picture_files(tmp_path / "pictures", 2)
    monkeypatch.setitem(sys.modules, "ray", None)  # what makes an import fail
    assert refusal(job(tmp_path, "out", "ray")) == (
        "--engine ray needs Ray, which is not installed: pip install 'cqr[ray]'"
    )
    assert not (tmp_path / "out").exists()


@needs_ray
def test_no_cluster_answers(tmp_path, monkeypatch):
    picture_files(tmp_path / "pictures", 2)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert refusal(job(tmp_path, "out", "ray")) == (
        "Ray cannot be used on 127.0.0.1:1 (Connection refused); start it there with `ray start"
        " --head`, mend RAY_ADDRESS, or leave out --engine ray"
    )


# --- what is computed --------------------------------------------------------------------------


@needs_ray
def test_the_same_bytes_as_without_and_errors_in_a_sentence(tmp_path):
    """One Ray for both, since starting it takes seconds."""
    picture_files(tmp_path / "pictures", 12)
    (tmp_path / "pictures" / "p003.png").write_bytes(b"no picture")
    done = subprocess.run(
        [sys.executable, SHARED / "ray_of_the_caller.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={**os.environ, **ray_extraction.PROMPT, "PYTHONPATH": str(SHARED)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


# --- what is killed ----------------------------------------------------------------------------


def ended(process: subprocess.Popen) -> None:
    """It ends in one sentence, having kept what was finished."""
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, printed) == (130, "")
    last = errors.splitlines()[-1]
    assert last == "Interrupted: what was finished is kept; run the same command to go on."
    assert "Traceback" not in errors


@needs_ray
def test_a_killed_worker_is_replaced_and_what_ctrl_c_leaves_is_gone_on_with(tmp_path):
    """Until the end: tests/test_remote.py."""
    picture_files(tmp_path / "pictures", 200)
    (tmp_path / "pictures" / "p199.png").write_bytes(b"no picture")
    plain, out = job(tmp_path, "plain", "local").out, tmp_path / "ray" / "x.h5"
    extract(job(tmp_path, "plain", "local"))
    same_plan(plain, out)
    process = ray_extraction.start(tmp_path, "ray/x.h5")
    ray_extraction.wait_for_a_shard(out, process)
    os.kill(ray_extraction.worker_of(tmp_path), signal.SIGKILL)
    left = len(list(shards_folder(out).glob("*.h5")))
    ray_extraction.wait_for_a_shard(out, process, more_than=left + 1)
    assert not out.exists()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    ended(process)
    ray_extraction.wait_until_all_ended(tmp_path)
    kept = set(shards_folder(out).glob("*.h5"))
    assert not out.exists()
    summary = extract(job(tmp_path, "ray", "local"))
    assert summary.kept >= 5 * len(kept)
    assert files(out) == files(plain)
    assert not list(out.parent.rglob("*.partial"))


@needs_ray
def test_a_request_to_end_ends_in_one_sentence(tmp_path):
    """Ray takes SIGTERM for itself."""
    picture_files(tmp_path / "pictures", 200)
    out = tmp_path / "ray" / "x.h5"
    process = ray_extraction.start(tmp_path, "ray/x.h5")
    ray_extraction.wait_for_a_shard(out, process)
    process.terminate()
    ended(process)
    assert list(shards_folder(out).glob("*.h5"))
    assert not out.exists()
    ray_extraction.wait_until_all_ended(tmp_path)
