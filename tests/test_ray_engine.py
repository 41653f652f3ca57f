"""Shards by Ray: the same bytes as without, whatever is killed on the way."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest

from cqr.errors import UserError
from cqr.pipeline import extract as module
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import shards_folder
from cqr.pipeline.plan import Plan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import ray_extraction  # noqa: E402
from fake_detector import FakeSpec, picture_files  # noqa: E402

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install 'cqr[ray]')"
)


class Elsewhere(FakeSpec):
    """Cannot be unpickled, as on a machine that has another cqr."""

    def __reduce__(self):
        return int, ("a spec",)


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


def same_plan(of: Path, to: Path) -> None:
    """Give `to` the plan of `of`: else the sets' ids, which shards hold, would differ."""
    shards_folder(to).mkdir(parents=True)
    Plan.load(shards_folder(of)).save(shards_folder(to))


def files(out: Path) -> dict[str, bytes]:
    """The shards and the list of failures."""
    found = [out.with_suffix(".failures.csv"), *shards_folder(out).glob("*.h5")]
    return {file.name: file.read_bytes() for file in found}


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
def test_the_same_bytes_as_without_and_errors_in_a_sentence(tmp_path, monkeypatch):
    """One Ray for both, since starting it takes seconds; it stays, being the caller's."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(HERE))  # for the workers
    picture_files(tmp_path / "pictures", 12)
    (tmp_path / "pictures" / "p003.png").write_bytes(b"no picture")
    plain, by_ray = job(tmp_path, "plain", "local"), job(tmp_path, "ray", "ray")
    extract(plain)
    same_plan(plain.out, by_ray.out)
    ray.init(
        "local", num_cpus=1, num_gpus=0, include_dashboard=False, object_store_memory=100 << 20
    )
    try:
        summary = extract(by_ray)
        assert (summary.rows, summary.computed, len(summary.failures)) == (11, 12, 1)
        assert summary.times.detect > 0
        assert files(by_ray.out) == files(plain.out)
        assert len(files(by_ray.out)) == 4
        assert extract(by_ray).kept == 12

        broken = FakeSpec(config="memory")
        message = refusal(job(tmp_path, "memory", "ray", detector=broken))
        assert message.startswith("memory or the device gave out at p001.png (cannot allocate); ")
        assert message == refusal(job(tmp_path, "memory-too", "local", detector=broken))

        assert refusal(job(tmp_path, "absent", "ray", detector=Elsewhere())) == (
            "a worker of Ray cannot start (ValueError: invalid literal for int() with base 10:"
            " 'a spec'); install the same cqr and Ray on every machine"
        )

        monkeypatch.setattr(module, "_devices", lambda name: ["cuda:0"])
        assert refusal(job(tmp_path, "gpu", "ray")) == (
            "the machines of this Ray have no GPU to give; add one that has, or choose another"
            " --device"
        )
        assert ray.is_initialized()
    finally:
        ray.shutdown()


# --- what is killed ----------------------------------------------------------------------------


@needs_ray
def test_a_killed_worker_is_replaced(tmp_path):
    picture_files(tmp_path / "pictures", 100)
    (tmp_path / "pictures" / "p099.png").write_bytes(b"no picture")
    plain, out = job(tmp_path, "plain", "local").out, tmp_path / "ray" / "x.h5"
    extract(job(tmp_path, "plain", "local"))
    same_plan(plain, out)
    process = ray_extraction.start(tmp_path, "ray/x.h5")
    ray_extraction.wait_for_a_shard(out, process)
    os.kill(ray_extraction.worker_of(tmp_path), signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert printed.startswith("Wrote ray/x.h5: 99 pictures, ")
    assert "Computed 100 pictures in this run, kept 0" in printed
    assert files(out) == files(plain)
    assert not list(out.parent.rglob("*.partial"))
    ray_extraction.wait_until_all_ended(tmp_path)


@needs_ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_one_sentence(tmp_path, number):
    picture_files(tmp_path / "pictures", 300)
    out = tmp_path / "ray" / "x.h5"
    process = ray_extraction.start(tmp_path, "ray/x.h5")
    ray_extraction.wait_for_a_shard(out, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, printed) == (130, "")
    last = errors.splitlines()[-1]
    assert last == "Interrupted: what was finished is kept; run the same command to go on."
    assert "Traceback" not in errors
    assert list(shards_folder(out).glob("*.h5"))
    assert not out.exists()
    ray_extraction.wait_until_all_ended(tmp_path)
