"""A table of queries and its folder, with everything wrong that a survey is to find."""

import pytest

from command_line import cqr
from cqr.errors import UserError
from cqr.trainer.datasets.survey import survey

HEAD = "reference,text,target,split\n"
ROWS = [
    "a.png,make it red,b.png,train",
    "a.png,make it red,b.png,train",
    "b.png,...,sub/c.png,test",
    "b.png,bigger,gone.png,test",
    "empty.png,bigger,A.PNG,test",
]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    contents = {"a.png": "one", "b.png": "two", "sub/c.png": "one", "more.png": "one!"}
    for name, content in (contents | {"empty.png": ""}).items():
        (place / name).write_text(content)
    (tmp_path / "photos.csv").write_text(HEAD + "\n".join(ROWS))
    return place


def test_what_is_missing_empty_blank_or_twice_is_found(folder):
    found = survey(folder.with_suffix(".csv"), compare=True)
    assert found.pictures == folder
    assert found.splits == [("train", 2, 3, None), ("test", 3, 5, 5)]
    assert found.missing == ["gone.png"]
    assert found.empty == ["empty.png"]
    assert found.there == ["a.png", "b.png", "empty.png", "more.png", "sub/c.png"]
    assert found.blank == ["3"]
    assert found.repeated == ["2"]
    assert found.astray == ["4"]
    assert found.alike == [["a.png", "sub/c.png"]]
    [note] = found.dataset.notes
    assert note == (
        "1 images are named in other letter case than their files, first A.PNG (a.png): "
        "they are taken to be the same"
    )


def test_nothing_is_compared_unless_asked_for(folder):
    assert survey(folder).alike is None


def test_a_folder_without_pictures_is_surveyed_all_the_same(tmp_path):
    (tmp_path / "q.csv").write_text(HEAD + "\n".join(ROWS))
    found = survey(tmp_path)
    assert (found.there, found.named, len(found.missing)) == ([], 6, 6)


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no.csv does not exist: name the folder of a data set"):
        survey(tmp_path / "no.csv")


def test_the_command_prints_it_and_lists_the_pictures(folder, tmp_path):
    done = cqr("data", "photos", "--list", "list.txt", "--compare")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "Data set table (photos.csv)"
    for line in (
        "Pictures 6 images are needed, 5 are in photos; 0 other pictures there are not",
        "1 images have no picture: gone.png",
        "1 pictures are empty files: empty.png",
        "1 queries have no word: 3",
        "1 queries repeat another: 2",
        "1 queries of test have no correct image in the gallery: 4",
        "1 pictures are equal to another, byte by byte: sub/c.png",
        "Next: cqr extract --images photos --list list.txt --k 36",
    ):
        assert line in lines
    listed = (tmp_path / "list.txt").read_text().splitlines()
    assert listed == ["a.png", "b.png", "empty.png", "more.png", "sub/c.png"]
