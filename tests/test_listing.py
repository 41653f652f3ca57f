"""Which files are pictures: below a folder, by name."""

import os

import pytest

from cqr import listing
from cqr.errors import UserError


def test_finds_below_sorted_in_any_case_and_skips_hidden(tmp_path):
    for name in ("b/z.JPG", "b/a.jpeg", "a.png", "a.PNG", "a.tif", ".c.png", ".d/e.png", "t.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, refused = listing.find(tmp_path)
    assert found == ["a.PNG", "a.png", "a.tif", "b/a.jpeg", "b/z.JPG"]
    assert refused == []


def test_odd_names_are_kept_but_for_those_that_are_not_utf8(tmp_path):
    names = ["a b.png", "a,b.png", "a\nb.png", 'a"b.png', "ä.png", "%d.png"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / os.fsdecode(b"\xff.png")).touch()
    found, refused = listing.find(tmp_path)
    assert found == sorted(names)
    assert refused == [("\\xff.png", "name is not valid UTF-8")]


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.png").touch()
    (root / "a" / "up").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "far")
    (root / "c.png").symlink_to(tmp_path / "far" / "x.png")
    (root / "broken.png").symlink_to("nowhere")
    (root / "self.png").symlink_to("self.png")
    assert listing.find(root)[0] == ["b/x.png", "broken.png", "c.png", "self.png"]


def test_the_folder_that_is_written_to_is_skipped(tmp_path):
    for name in ("a.png", "artifacts/run.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert listing.find(tmp_path, skip=tmp_path / "artifacts")[0] == ["a.png"]
    assert listing.find(tmp_path, skip=tmp_path)[0] == ["a.png", "artifacts/run.png"]


def test_folders_that_are_none(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, message in {
        "no": "does not exist; name a folder of pictures with --images",
        "file": "is a file, not a folder; name a folder of pictures with --images",
    }.items():
        with pytest.raises(UserError) as caught:
            listing.find(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} {message}"
    with pytest.raises(UserError, match=r"^no pictures in .*empty \(looked for .avif .bmp "):
        listing.find(tmp_path / "empty")
