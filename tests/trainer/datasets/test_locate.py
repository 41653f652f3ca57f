"""Names of a data set to paths of pictures, against brute force over every pair."""

import os
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.locate import locate, located
from cqr.trainer.datasets.queries import Dataset
from cqr.trainer.datasets.readers import table

SUFFIXES = ["", ".jpg", ".JPG", ".jpeg", ".png", ".txt"]
FOLDERS = st.lists(st.sampled_from(["a", "b", "A", "a.jpg", "d e"]), max_size=3)
LAST = st.builds(
    "".join, st.tuples(st.sampled_from(["x", "X", "y", "x.1"]), st.sampled_from(SUFFIXES))
)
PATHS = st.builds(lambda folders, last: "/".join([*folders, last]), FOLDERS, LAST)
SOME = st.lists(PATHS, unique=True, max_size=12)


def components(path):
    *folders, last = path.split("/")
    stem, suffix = os.path.splitext(last)
    return [*folders, stem if suffix.lower() in (".jpg", ".jpeg", ".png") else last]


def brute(name, paths):
    """The best paths of one name, and whether its case had to be ignored."""
    if name in paths:
        return [name], False
    for ignored in (False, True):
        a = components(name.lower() if ignored else name)
        agreement = {}
        for path in paths:
            b = components(path.lower() if ignored else path)
            n = min(len(a), len(b))
            if a[-n:] == b[-n:]:
                agreement[path] = n
        if agreement:
            most = max(agreement.values())
            return sorted(path for path, n in agreement.items() if n == most), ignored
    return [], False


@settings(max_examples=200, deadline=None)
@given(names=SOME, paths=SOME)
def test_every_name_gets_what_brute_force_finds(names, paths):
    found, other_case = locate(names, paths)
    expected = {name: brute(name, paths) for name in names}
    assert found == {name: some for name, (some, _) in expected.items() if some}
    assert set(other_case) == {name for name, (_, ignored) in expected.items() if ignored}


def dataset(*names, copies=True):
    """Queries from each name to the next, and all the names as images."""
    queries = pd.DataFrame(
        {"reference": names, "target": [*names[1:], None], "split": "test"}, dtype=object
    )
    images = pd.DataFrame({"path": names, "caption": None, "split": "test"}, dtype=object)
    return Dataset("d", "here", queries, images, table.PROTOCOL, copies=copies)


def paths_of(names, paths, **kwargs):
    return located(dataset(*names, **kwargs), paths).images["path"].tolist()


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["B01", "B02"], ["B01.jpg", "B02.jpg"]),
        (["B01", "B02"], ["image_data/dress/B01.png", "image_data/shirt/B02.png"]),
        (["women/dresses/1/1_0.jpeg", "women/tops/1/1_0.jpeg"],
         ["dresses/1/1_0.webp", "tops/1/1_0.webp"]),
        (["train/34/t-0.png", "dev/d-0.png"], ["small/train/34/t-0.jpg", "small/dev/d-0.jpg"]),
        (["new cat/a, b+c.JPG", "old cat/a"], ["new cat/a, b+c.jpg", "old cat/a.jpg"]),
    ],
    ids=["bare names", "a folder a category", "a deeper root", "a higher root", "other suffix"],
)  # fmt: skip
def test_pictures_are_found_wherever_their_authors_put_them(names, paths):
    assert paths_of(names, paths) == paths


def test_an_image_without_a_picture_keeps_its_name_and_no_target_stays_none():
    data = located(dataset("B01", "B02"), ["flat/B02.jpg"])
    assert data.queries["reference"].tolist() == ["B01", "flat/B02.jpg"]
    assert data.queries["target"].tolist() == ["flat/B02.jpg", None]
    assert data.notes == ()


def test_lists_of_images_are_renamed_too():
    data = dataset("B01", "B02")
    queries = data.queries.assign(members=[["B01", "B02", "gone"], []], targets=[["B02"], ["B01"]])
    queries = located(replace(data, queries=queries), ["x/B01.png", "y/B02.png"]).queries
    assert queries["members"].tolist() == [["x/B01.png", "y/B02.png", "gone"], []]
    assert queries["targets"].tolist() == [["y/B02.png"], ["x/B01.png"]]


def test_of_several_copies_the_first_is_used_and_that_is_said():
    paths = ["toptee/B01.jpg", "dress/B01.jpg", "dress/B02.jpg"]
    data = located(dataset("B01", "B02"), paths)
    assert data.images["path"].tolist() == ["dress/B01.jpg", "dress/B02.jpg"]
    [note] = data.notes
    assert note == (
        "1 images have several pictures, first B01 (dress/B01.jpg, toptee/B01.jpg): "
        "the first of each is used"
    )


def test_where_pictures_are_no_copies_a_name_that_fits_several_is_refused():
    with pytest.raises(UserError) as error:
        paths_of(["x.jpg", "y.jpg"], ["b/x.jpg", "a/x.jpg", "y.jpg"], copies=False)
    assert str(error.value) == ("here names x.jpg, which fits a/x.jpg and b/x.jpg: write the path")


def test_other_letter_case_is_taken_for_the_same_and_said():
    data = located(dataset("Women/B01.JPG", "b02"), ["women/B01.jpg", "B02.jpg", "b03.jpg"])
    assert data.images["path"].tolist() == ["women/B01.jpg", "B02.jpg"]
    [note] = data.notes
    assert note == (
        "2 images are named in other letter case than their files, first Women/B01.JPG "
        "(women/B01.jpg): they are taken to be the same"
    )


@pytest.mark.parametrize(
    "names",
    [
        ["old cat/1.jpg", "new cat/1.jpg"],
        ["b/a/1.jpeg", "c/a/1"],
        ["a/1.jpg", "b/a/1.jpg", "c/a/1.jpg"],
    ],
)
def test_one_picture_is_never_taken_for_two_images(names):
    with pytest.raises(UserError) as error:
        paths_of(names, ["1.png"])
    assert str(error.value) == (
        f"here names {names[-2]} and {names[-1]}, and the picture 1.png fits both: extract from "
        "a folder further up, so that the paths of the two differ"
    )


@pytest.mark.parametrize("names", [["c.jpg", "sub/c.jpg"], ["sub/c.jpeg", "photos/sub/c"]])
def test_one_image_may_be_named_in_a_longer_and_a_shorter_way(names):
    assert paths_of(names, ["c.jpg"], copies=False) == ["c.jpg", "c.jpg"]


@pytest.mark.timeout(10)  # in a time that grows with the square, these would take 20 s and more
def test_many_pictures_of_one_file_name_are_no_burden():
    paths = [f"images/{i}/0001.png" for i in range(30_000)]
    found, _ = locate([f"{i}/0001.jpg" for i in range(30_000)], paths)
    assert found == {f"{i}/0001.jpg": [path] for i, path in enumerate(paths)}
