"""Published weights: from the cache, or downloaded and checked, or one sentence."""

import hashlib
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cqr.errors import UserError
from cqr.pipeline.detectors.download import Source, reachable

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "w.pth").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed():
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/w.pth"


def test_downloads_once_and_checks(server, tmp_path):
    path = tmp_path / "cache" / "deep" / "w.pth"
    source = Source(f"{server}/w.pth", path, SHA256[:8])
    assert source.get() == path
    assert path.read_bytes() == CONTENT
    assert Source("http://nowhere.invalid/w.pth", path, SHA256[:8]).get() == path


def test_another_file_than_published_is_not_kept(server, tmp_path):
    path = tmp_path / "w.pth"
    with pytest.raises(UserError, match=rf"fetch {server}/w.pth by hand .*--weights FILE"):
        Source(f"{server}/w.pth", path, "00000000").get()
    assert list(tmp_path.glob("w.pth*")) == []


def test_a_damaged_copy_is_named(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(CONTENT[:99])
    with pytest.raises(UserError, match=rf"{path} are damaged; delete that file"):
        Source("http://nowhere.invalid/w.pth", path, SHA256[:8]).get()


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot download weights to .*--weights FILE"):
        Source(f"{server}/w.pth", tmp_path / "file" / "w.pth").get()


def test_out_of_reach(server, closed, tmp_path):
    assert reachable(f"{server}/w.pth")
    assert not reachable(f"{server}/absent.pth")
    assert not reachable(closed)
    with pytest.raises(UserError, match=rf"cannot reach {closed} .*--weights FILE"):
        Source(closed, tmp_path / "w.pth").get()


def test_a_server_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/w.pth", seconds=0.2)
