"""Which files are pictures: below a folder, by name."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# --- a list ------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    for name in ("b/z.jpg", "a.png", "c c.jpg", "ä.png", "no suffix", ".hidden.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    return tmp_path / "root"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_a_list_in_any_kind_of_text(root, tmp_path, end, mark, last):
    names = ["c c.jpg", "", "./b//z.jpg", "ä.png", "  ", "no suffix", "b/./z.jpg", "gone.png"]
    text = end.join(names) + (end if last else "")
    (tmp_path / "list").write_bytes(mark + text.encode())
    found = listing.listed(root, tmp_path / "list")
    assert found.paths == ["b/z.jpg", "c c.jpg", "no suffix", "ä.png"]
    assert found.missing == [("gone.png", f"is listed in {tmp_path / 'list'} but not there")]
    assert found.repeated == 1


def test_what_is_no_end_of_a_line_stays_in_the_name(root, tmp_path):
    names = ["a\x0bb.png", "a\u2028b.png", "a\rb.png", " a.png ", "a\tb.png"]
    for name in names:
        (root / name).touch()
    (tmp_path / "list").write_text("\n".join(names), newline="")
    assert listing.listed(root, tmp_path / "list") == (sorted(names), [], 0)


def test_a_link_that_leads_nowhere_is_there(root, tmp_path):
    (root / "link.png").symlink_to("nowhere")
    (tmp_path / "list").write_text("link.png")
    assert listing.listed(root, tmp_path / "list").paths == ["link.png"]


@pytest.mark.parametrize("line", ["/etc/x.png", "../x.png", "a/../../x.png", "a\0b.png"])
def test_a_list_of_what_lies_elsewhere(root, tmp_path, line):
    file = tmp_path / "list"
    file.write_text(f"a.png\n{line}\n")
    with pytest.raises(UserError) as caught:
        listing.listed(root, file)
    assert str(caught.value) == (
        f"line 2 of {file}, {line!r}, cannot be a picture in {root}; list paths relative to that"
        f" folder, without .."
    )


def test_lists_that_are_none(root, tmp_path):
    file = tmp_path / "list"
    for content, message in {
        None: f"cannot read {file}: No such file or directory",
        b"": f"{file} names no picture; write one path relative to {root} on each line",
        b"\xef\xbb\xbf\r\n \n": f"{file} names no picture; write one path relative to {root} on"
        f" each line",
        b"a.png\n\xe4.png": f"line 2 of {file} is not UTF-8; save the file as UTF-8",
        "a.png".encode("utf-16"): f"line 1 of {file} is not UTF-8; save the file as UTF-8",
    }.items():
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            listing.listed(root, file)
        assert str(caught.value) == message
    with pytest.raises(UserError, match=r"nowhere does not exist; name a folder of pictures"):
        listing.listed(tmp_path / "nowhere", file)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/\n\r\ufeff"))
        .map(lambda name: f"x{name}")
        .filter(lambda name: len(name.encode()) < 200),
        min_size=1,
    ),
    st.booleans(),
)
def test_every_line_is_there_or_missing(tmp_path_factory, names, crlf):
    folder = tmp_path_factory.mktemp("any")
    for name in names[::2]:
        (folder / name).touch()
    (folder / ".list").write_bytes(("\r\n" if crlf else "\n").join(names).encode())
    found = listing.listed(folder, folder / ".list")
    assert set(found.paths) == set(names[::2])
    assert {failure.path for failure in found.missing} == set(names) - set(names[::2])
    assert found.repeated == len(names) - len(set(names))


def made(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_folders_that_link_to_one_another_are_each_taken_once(tmp_path):
    albums = [f"album{i}" for i in range(5)]
    made(tmp_path, *(f"{name}/{name}.png" for name in albums))
    for one in albums:
        for other in albums:
            (tmp_path / one / f"to-{other}").symlink_to(tmp_path / other)
    looked = listing.look(tmp_path)
    assert looked.paths == [f"{name}/{name}.png" for name in albums]
    assert looked.notes == [
        "Linked: 25 folders that are there under another name too; each is taken once"
    ]


def test_folders_in_folders_to_any_depth(tmp_path):
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        open("a.png", "w").close()
        found, _ = listing.find(tmp_path)
        os.remove("a.png")
    finally:  # by hand: what clears away after a test goes into itself for each folder
        while os.getcwd() != str(tmp_path):
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)
    assert found == ["d/" * 1200 + "a.png"]


def test_folders_beyond_the_longest_path_are_a_failure(tmp_path):
    """Of Linux's 4,096 bytes; what lies before them is found."""
    (tmp_path / "a.png").touch()
    here, name, made = os.getcwd(), "d" * 200, 0
    os.chdir(tmp_path)
    try:
        for _ in range(25):
            os.mkdir(name)
            os.chdir(name)
            made += 1
        found, [failure] = listing.find(tmp_path)
    finally:
        for _ in range(made):
            os.chdir("..")
            os.rmdir(name)
        os.chdir(here)
    assert found == ["a.png"]
    assert failure.reason == "the folder cannot be listed (File name too long)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder; see the next test")
def test_a_folder_without_access_is_a_failure(tmp_path):
    made(tmp_path, "a.png", "b/c.png")
    (tmp_path / "b").chmod(0)
    try:
        check_unreadable(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path, monkeypatch):
    made(tmp_path, "a.png", "b/c.png")
    scandir = os.scandir

    def refusing(folder):
        if str(folder).rstrip("/").endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    check_unreadable(tmp_path)


def check_unreadable(root):
    assert listing.find(root) == (
        ["a.png"],
        [("b", "the folder cannot be listed (Permission denied)")],
    )


def test_what_is_passed_over_is_counted_by_suffix(tmp_path):
    made(tmp_path, "a.png", "b.dng", "c.DNG", "d.jpg?w=500", "e.jpg?w=20", "README", "f.zip")
    (note,) = listing.look(tmp_path).notes
    assert note == (
        "Passed over, by their suffix: 2 .dng, 2 .jpg?, 1 without a suffix, 1 .zip (save raw "
        "pictures as JPEG or TIFF; --list takes files of any name)"
    )
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"no pictures in .*: 2 .dng, 2 .jpg\?, .*--images"):
        listing.look(tmp_path)


def test_what_other_programs_keep_and_what_is_excluded(tmp_path):
    made(tmp_path, "a.png", "@eaDir/a.png", "x/#recycle/b.png", "__MACOSX/c.png", "x/d.png")
    made(tmp_path, "thumbs/e.png", "x/thumbs/f.png", "x/g_small.png")
    assert listing.find(tmp_path)[0] == [
        "a.png", "thumbs/e.png", "x/d.png", "x/g_small.png", "x/thumbs/f.png"
    ]  # fmt: skip
    looked = listing.look(tmp_path, exclude=("thumbs", "x/*_small.*"))
    assert looked.paths == ["a.png", "x/d.png"]
    (note,) = looked.notes
    assert note.startswith("Left out, with all that is in them: 2 thumbs, ")
    assert set(note.split(": ")[1].split(", ")) == {
        "2 thumbs", "1 #recycle", "1 @eaDir", "1 __MACOSX", "1 x/*_small.*"
    }  # fmt: skip
