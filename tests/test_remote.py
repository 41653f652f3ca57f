"""Feature files at URLs: the same bytes as in a folder, whatever is killed on the way."""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

import cqr
import ray_extraction
from cqr.errors import UserError
from cqr.pipeline import inspection
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import open_features, shards_folder
from cqr.pipeline.plan import Plan
from cqr.remote import is_remote, located
from fake_detector import FakeSpec, picture_files

SHARED = Path(__file__).parent / "shared"


def have(*names):
    return all(importlib.util.find_spec(name) is not None for name in names)


needs_upath = pytest.mark.skipif(
    not have("upath"), reason="universal_pathlib is not installed (pip install 'cqr[remote]')"
)
needs_s3 = pytest.mark.skipif(
    not have("upath", "s3fs", "moto", "flask"),
    reason="s3fs or moto's server is not installed (pip install 'cqr[test]')",
)


@pytest.fixture
def bucket(monkeypatch):
    """s3://bucket, of a server of its own on this machine."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()  # what tests before left
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield server
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def memory():
    from fsspec.implementations.memory import MemoryFileSystem

    yield "memory://a/x.h5"
    MemoryFileSystem.store.clear()


def job(tmp_path, out, **changes):
    settings = {"detector": FakeSpec(), "shard": 5, "workers": 1, **changes}
    return Job(tmp_path / "pictures", located(out), 18, **settings)


def plainly(tmp_path, out, number):
    """The files of the same extraction into a folder, having given its plan to `out`."""
    picture_files(tmp_path / "pictures", number)
    (tmp_path / "pictures" / "p003.png").write_bytes(b"no picture")
    plain = tmp_path / "plain" / "x.h5"
    extract(job(tmp_path, plain))
    Plan.load(shards_folder(plain)).save(shards_folder(located(out)))
    return files(plain)


def files(out):
    found = [out.with_suffix(".failures.csv"), *shards_folder(out).glob("*.h5")]
    return {file.name: file.read_bytes() for file in found}


def refusal(call):
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def test_a_url_of_this_machine_is_a_path(tmp_path):
    assert located(f"file://{tmp_path}/x.h5") == tmp_path / "x.h5"
    assert located(Path(f"file://{tmp_path}/x.h5")) == tmp_path / "x.h5"
    assert located("artifacts/x.h5") == Path("artifacts/x.h5")
    Path("s3:").mkdir()
    Path("s3:/x.h5").touch()
    assert located("s3:/x.h5") == Path("s3:/x.h5")  # one that is there
    assert not is_remote(located("a/x.h5"))


@needs_upath
def test_a_path_that_was_a_url_is_one_again(memory):
    assert str(located(Path(memory))) == memory
    assert located(located(memory)) == located(memory)


@needs_upath
def test_the_bytes_at_a_url_are_those_in_a_folder(tmp_path, memory, capsys):
    expected = plainly(tmp_path, memory, 12)
    out = located(memory)
    summary = extract(job(tmp_path, memory))
    assert (summary.rows, summary.computed, len(summary.failures)) == (11, 12, 1)
    assert files(out) == expected
    assert len(expected) == 4
    inspection.inspect(Path(memory), 0, None)
    assert "All is well" in capsys.readouterr().out
    plain, remote = open_features(tmp_path / "plain" / "x.h5"), cqr.open_features(memory)
    assert remote.paths == plain.paths
    a, b = (file.regions("p011.png") for file in (plain, remote))
    assert (a.features == b.features).all()


@needs_upath
def test_what_is_lost_or_damaged_is_computed_again(tmp_path, memory):
    expected = plainly(tmp_path, memory, 12)
    extract(job(tmp_path, memory))
    out = located(memory)
    first, second, _ = sorted(shards_folder(out).glob("*.h5"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    assert "is missing" in refusal(lambda: open_features(out))
    summary = extract(job(tmp_path, memory))
    assert (summary.computed, summary.kept) == (10, 2)
    assert files(out) == expected
    changed = bytearray(second.read_bytes())
    changed[len(changed) // 2] ^= 1  # in the features
    second.write_bytes(bytes(changed))
    assert "is damaged (its checksum is another)" in refusal(
        lambda: inspection.inspect(out, 0, None)
    )


@needs_upath
def test_a_training_asks_for_a_copy(tmp_path, memory):
    plainly(tmp_path, memory, 6)
    extract(job(tmp_path, memory))
    assert refusal(lambda: cqr.train(memory)) == (
        "memory://a/x.h5 cannot be mapped into memory: copy it and memory://a/x.shards to one"
        " folder of this machine, and name that copy"
    )


@needs_upath
def test_what_cannot_be_written_ends_in_a_sentence(tmp_path, memory, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    picture_files(tmp_path / "pictures", 2)

    def denied(*args, **more):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "put_file", denied)
    assert refusal(lambda: extract(job(tmp_path, memory))) == (
        "memory://a/x.shards/plan.json cannot be reached (Access Denied): see that its address is"
        " right, its server runs, and the credentials in the environment may read and write there"
    )


def test_without_what_reaches_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "upath", None)  # what makes an import fail
    said = refusal(lambda: located("s3://bucket/x.h5"))
    assert said.startswith("s3://bucket/x.h5 cannot be reached (")
    assert "pip install 'cqr[remote]', which brings s3://" in said


@needs_upath
def test_a_kind_of_url_that_there_is_not():
    assert "mend the URL" in refusal(lambda: located("nosuch://b/x.h5"))


@needs_s3
def test_workers_put_their_shards_into_a_bucket(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SHARED))  # for the workers
    url = "s3://bucket/some/x.h5"
    expected = plainly(tmp_path, url, 12)
    assert extract(job(tmp_path, url, workers=2)).rows == 11
    assert files(located(url)) == expected
    assert extract(job(tmp_path, url)).kept == 12
    inspection.inspect(Path(url), 0, None)
    nowhere = "s3://nobucket/x.h5"
    assert refusal(lambda: extract(job(tmp_path, nowhere))) == (
        "cannot write s3://nobucket/x.shards/plan.json (The specified bucket does not exist): make"
        " its bucket, or name another place"
    )
    bucket.stop()
    assert "cannot be reached (Could not connect" in refusal(lambda: open_features(Path(url)))


@needs_s3
@pytest.mark.skipif(not have("ray"), reason="Ray is not installed (pip install 'cqr[ray]')")
def test_a_killed_worker_of_ray_is_replaced(tmp_path, bucket, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    url = "s3://bucket/x.h5"
    expected = plainly(tmp_path, url, 40)
    process = ray_extraction.start(tmp_path, url)
    ray_extraction.wait_for_a_shard(located(url), process)
    os.kill(ray_extraction.worker_of(tmp_path), signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert printed.startswith(f"Wrote {url}: 39 pictures, ")
    assert f"Next: cqr inspect {url}" in printed
    assert files(located(url)) == expected
