"""cqr inspect: what it prints, what it finds, what it draws."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from command_line import cqr
from cqr.errors import UserError
from cqr.pipeline import inspection
from cqr.pipeline.examine import _largest, examine
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import open_features, shards_folder
from cqr.pipeline.show import FIRST, draw
from fake_detector import FakeSpec, picture_files

K = 18


@pytest.fixture
def out(tmp_path) -> Path:
    picture_files(tmp_path / "pictures", 7)
    out = tmp_path / "x.h5"
    extract(Job(tmp_path / "pictures", out, K, FakeSpec(), shard=4, workers=1))
    return out


def test_a_good_file(out):
    command = [sys.executable, "-m", "cqr.cli", "inspect", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    for expected in ("7 below", "8 to 12 wide", "18; 0 pictures have all, 16.0 on average", "fake"):
        assert expected in run.stdout
    assert run.stdout.splitlines()[-1].startswith("All is well: ")


def test_findings_are_counted(out):
    findings = examine(open_features(out))
    with h5py.File(out) as file:
        scores = file["regions/scores"][:, :16]
        features = file["regions/features"][:]
    assert (findings.pictures, findings.regions, findings.full) == (7, 7 * 16, 0)
    assert findings.score == (scores.min(), scores.max())
    assert findings.largest == features.max()
    assert findings.problems == []


@pytest.mark.parametrize(
    ("name", "place", "value", "problem"),
    [
        (
            "regions/features",
            (2, 3, 1),
            np.nan,
            "has values in regions/features that are not finite",
        ),
        (
            "regions/features",
            (2, 3, 1),
            -np.inf,
            "has values in regions/features that are not finite",
        ),
        ("whole/features", (2, 0), np.inf, "has values in whole/features that are not finite"),
        ("regions/scores", (2, 0), np.nan, "has values in regions/scores that are not finite"),
        ("regions/boxes", (2, 0, 2), 8.5, "has a box outside the picture"),
        ("regions/boxes", (2, 0, 0), -0.5, "has a box outside the picture"),
        ("regions/boxes", (2, 0), (5, 0, 4, 1), "has a box outside the picture"),
        ("regions/features", (2, 16, 0), 1, "has regions/features beyond its count"),
        ("regions/boxes", (2, 17, 3), 1, "has regions/boxes beyond its count"),
        ("regions/scores", (2, 16), 0.5, "has regions/scores beyond its count"),
        ("regions/count", 2, 0, "has a count that is not 1 to 18"),
        ("regions/count", 2, 19, "has a count that is not 1 to 18"),
    ],
)
def test_what_is_wrong_with_a_picture(out, name, place, value, problem):
    with h5py.File(shards_folder(out) / "00000.h5", "a") as file:
        file[name][place] = value
    assert f"'p002.png' {problem}" in examine(open_features(out)).problems


def test_what_is_wrong_with_the_joining_file(out):
    file = shards_folder(out) / "00001.h5"
    with h5py.File(file, "a") as shard:
        shard["images/path"][0] = "z.png"
        shard["images/size"][0] = (0, 12)
    problems = examine(open_features(out)).problems
    assert "00001.h5 holds other paths than x.h5 says" in problems
    assert "00001.h5 holds other sizes than x.h5 says" in problems
    assert "00001.h5 is not sorted by path" in problems
    assert "'z.png' has a size below 1 x 1" in problems


def test_two_pictures_of_one_path(out):
    with h5py.File(out, "a") as file:
        file["images/path"][1] = "p000.png"
    assert "a path is there more than once" in examine(open_features(out)).problems


def test_the_command_ends_with_an_error(out):
    with h5py.File(shards_folder(out) / "00000.h5", "a") as file:
        file["regions/features"][2, 3, 1] = np.nan
    run = cqr("inspect", out)
    lost = "00000.h5 has lost its checksums: it was written to since"
    problem = "'p002.png' has values in regions/features that are not finite"
    assert run.returncode == 1
    assert run.stdout.splitlines()[-2:] == [f"Wrong: {lost}", f"Wrong: {problem}"]
    pictures = out.parent / "pictures"
    assert run.stderr == (
        f"Error: {out} has 2 faults, the first: {lost}; make it again with: cqr extract"
        f" --images {pictures} --k 18 --detector fake --out {out} --overwrite\n"
    )


def test_a_missing_shard_is_one_sentence(out):
    (shards_folder(out) / "00001.h5").unlink()
    run = cqr("inspect", out)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(
        f"Error: shard {shards_folder(out) / '00001.h5'} of {out} is missing "
    )
    assert run.stderr.count("\n") == 1


# --- drawing -----------------------------------------------------------------------------------


def test_boxes_are_drawn_where_they_are(tmp_path):
    """A grid of four columns over a white picture: the first box in the first colour."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (420, 420), "white").save(folder / "a.png")
    out = tmp_path / "x.h5"
    extract(Job(folder, out, 1, FakeSpec(), workers=1))
    draw(open_features(out), 1, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.array(image.convert("RGB"))
    colour = tuple(int(FIRST[0][i : i + 2], 16) for i in (1, 3, 5))
    rows, columns = np.nonzero((sheet == colour).all(2))
    with h5py.File(out) as file:
        x1, y1, x2, y2 = file["regions/boxes"][0, 0] + 20  # the sheet's margin
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (x1, y1, x2, y2)


def test_show_writes_beside_the_file_and_survives_lost_pictures(out):
    (out.parent / "pictures" / "p000.png").unlink()
    run = cqr("inspect", out, "--show", "20")
    assert run.returncode == 0
    assert f"Drew 7 pictures: {out.with_suffix('.boxes.png')}" in run.stdout
    with Image.open(out.with_suffix(".boxes.png")) as sheet:
        assert sheet.width == 3 * 440 + 20


def test_save_elsewhere_and_under_no_picture_name(out, tmp_path):
    inspection.inspect(out, 2, tmp_path / "new" / "sheet.jpg")
    with Image.open(tmp_path / "new" / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
    with pytest.raises(UserError) as caught:
        inspection.inspect(out, 2, tmp_path / "sheet.txt")
    assert str(caught.value) == (
        f"{tmp_path / 'sheet.txt'} is no name for a picture; give --save a name that ends in .png"
    )


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_bits_say_of_numbers_what_numpy_says(dtype):
    numbers = np.array([0, -0.0, 1, -1, 2, 100, -100, 0.1, -1e-7, 6e4], "f8")
    if dtype != "i4":
        numbers = np.append(numbers, [np.inf, -np.inf, np.nan, -np.nan])
    numbers = numbers.astype(dtype)
    sizes, infinite = _largest(numbers, 1)
    sizes = sizes[:, 0]
    assert (sizes < infinite).tolist() == np.isfinite(numbers).tolist()
    assert (sizes > 0).tolist() == (numbers != 0).tolist()
    if dtype != "i4":
        order = np.argsort(sizes[:-2], kind="stable")
        assert np.abs(numbers)[order].tolist() == sorted(np.abs(numbers[:-2]).tolist())


@pytest.mark.parametrize("dtype", ["f2", "f4", "i4"])
def test_the_largest_of_a_part_is_of_its_numbers_alone(dtype):
    numbers = np.arange(-30, 30).reshape(2, 3, 10).astype(dtype)
    largest, _ = _largest(numbers, 3)
    expected = np.abs(numbers).max(2) if dtype != "i4" else np.ones((2, 3), bool)
    assert (largest.view(dtype) if dtype != "i4" else largest).tolist() == expected.tolist()
