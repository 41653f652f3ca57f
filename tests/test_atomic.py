"""Files that are whole or not there, and folders that one process writes at a time."""

import errno
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from cqr import atomic
from cqr.errors import UserError
from cqr.pipeline import assembly


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_under_its_name_once_the_block_has_ended(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic.replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert re.fullmatch(r"\.a\.txt\.[0-9a-f]{8}\.partial", temporary.name)
        temporary.write_text("whole")
        assert entries(path.parent) == [temporary.name]
    assert path.read_text() == "whole"
    assert entries(path.parent) == ["a.txt"]


def failing(path, content, error):
    """A writer that fails half way."""
    with atomic.replacing(path) as temporary:
        temporary.write_text(content)
        raise error


def test_until_then_the_old_file_stands_and_an_error_leaves_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        failing(path, "ne", ZeroDivisionError())
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["a.txt"]
    with atomic.replacing(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert entries(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with (
        atomic.replacing(tmp_path / "a") as one,
        atomic.replacing(tmp_path / "a") as other,
    ):
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"  # whose block ended last
    assert entries(tmp_path) == ["a"]


def test_content_is_on_disk_before_the_rename_and_the_rename_before_the_return(
    tmp_path, monkeypatch
):
    path, happened, real = tmp_path / "a", [], os.fsync

    def fsync(handle):
        happened.append((os.readlink(f"/proc/self/fd/{handle}"), path.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    handles = len(os.listdir("/proc/self/fd"))
    with atomic.replacing(path) as temporary:
        temporary.write_text("whole")
    assert happened == [(str(temporary), False), (str(tmp_path), True)]
    assert len(os.listdir("/proc/self/fd")) == handles


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("the library's own words"), "the library's own words"),
    ],
)
def test_a_full_disk_is_said_in_one_sentence(tmp_path, error, reason):
    path = tmp_path / "a"
    with pytest.raises(UserError) as caught:
        failing(path, "half", error)
    said = f"cannot write {path}: {reason}; make room or choose another place"
    assert str(caught.value) == said
    assert caught.value.__cause__ is error
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    sentence = f"cannot write {tmp_path}/file/a: File exists; make room or choose another place"
    with pytest.raises(UserError) as caught, atomic.replacing(tmp_path / "file" / "a"):
        raise AssertionError("the block was entered")
    assert str(caught.value) == sentence


# --- one process at a time ---------------------------------------------------------------------

OTHER = """
import sys
from pathlib import Path
from cqr import atomic
from cqr.errors import UserError
try:
    with atomic.alone(Path(sys.argv[1]), "writing x.h5", *sys.argv[2:]):
        print("alone")
except UserError as error:
    print(error)
"""


def other(folder, *otherwise):
    """What another process says that wants the folder."""
    arguments = [sys.executable, "-c", OTHER, str(folder), *otherwise]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_second_process_is_refused_until_the_first_has_left(tmp_path):
    folder = tmp_path / "new" / "folder"
    with atomic.alone(folder, "writing x.h5"):
        assert entries(folder) == [".lock"]
        assert other(folder) == "another cqr is writing x.h5; wait for it"
        alternative = other(folder, "choose another --out")
        assert alternative == "another cqr is writing x.h5; wait for it, or choose another --out"
        assert other(tmp_path / "elsewhere") == "alone"
    assert other(folder) == "alone"
    with pytest.raises(ZeroDivisionError), atomic.alone(folder, "writing x.h5"):
        1 / 0  # noqa: B018
    with atomic.alone(folder, "writing x.h5"):
        pass


@pytest.mark.parametrize(
    ("otherwise", "advice"),
    [
        ((), "make room or choose another place"),
        (("choose another --out",), "choose another --out"),
    ],
)
def test_a_folder_that_cannot_be_written_is_said(tmp_path, otherwise, advice):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError) as caught, atomic.alone(folder, "writing x.h5", *otherwise):
            raise AssertionError("the block was entered")
        assert re.fullmatch(
            rf"cannot write {folder}: (File exists|Not a directory); {advice}", str(caught.value)
        )


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "ä" * 127])
def test_the_longest_names_are_written(tmp_path, name):
    with atomic.replacing(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with atomic.in_turn(tmp_path / name):
        pass


def test_many_at_one_file_lose_nothing_and_leave_no_lock(tmp_path):
    """The lock is removed each time, while others wait for it."""
    file = tmp_path / "n"
    file.write_text("0")

    def add():
        for _ in range(50):
            with atomic.in_turn(file):
                number = int(file.read_text())
                time.sleep(0)  # let others run
                file.write_text(str(number + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() == "400"
    assert entries(tmp_path) == ["n"]


def test_a_lock_that_a_kill_left_is_taken_and_removed(tmp_path):
    (tmp_path / ".n.lock").touch()
    with atomic.alone_at(tmp_path / "n", "at it"):
        with (
            pytest.raises(UserError, match="another cqr is at it; wait for it"),
            atomic.alone_at(tmp_path / "n", "at it"),
        ):
            pass
        assert entries(tmp_path) == [".n.lock"]
    assert entries(tmp_path) == []


def test_a_name_that_is_too_long_is_one_sentence(tmp_path):
    path = tmp_path / ("a" * 256)
    said = "File name too long; make room or choose another place"
    with pytest.raises(UserError, match=said), atomic.replacing(path) as temporary:
        temporary.write_text("x")
    with pytest.raises(UserError, match="too long for a file; give a shorter --out"):
        assembly.check_out(tmp_path / ("a" * 243 + ".h5"))
    with pytest.raises(UserError, match="too long for a file; give a shorter --out"):
        assembly.check_out(tmp_path / ("a" * 300 + ".h5"))
    assembly.check_out(tmp_path / ("a" * 230 + ".h5"))
