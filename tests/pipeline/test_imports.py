"""Other people's features: what the columns hold is what the file holds, or it is said."""

import csv
import gzip
import io
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from command_line import cqr
from cqr import atomic
from cqr.errors import UserError
from cqr.pipeline.examine import examine
from cqr.pipeline.feature_file import open_features, shards_folder
from cqr.pipeline.imports import ImportJob, Names, default_out, import_features, tsv
from cqr.trainer.features import RegionReader
from feature_sources import (
    Picture,
    bottom_up,
    info,
    lxmert,
    picture,
    pictures,
    write_arrays,
    write_npz,
    write_tsv,
)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """What is written is not flushed: tests/pipeline/test_extract.py pulls the plug."""
    monkeypatch.setattr(atomic, "_flush", lambda path: None)


def imported(source: Path, out: Path | None = None, **options):
    return import_features(ImportJob(source, out or Path("x.h5"), **options))


def refusal(source: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        imported(source, **options)
    return str(caught.value)


def failures(out: Path = Path("x.h5")) -> list[tuple[str, str]]:
    file = out.with_suffix(".failures.csv")
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return [tuple(row) for row in csv.reader(stream)][1:]


def held(out: Path, path: str) -> dict[str, np.ndarray]:
    with h5py.File(out) as file:
        row = list(file["images/path"].asstr()[:]).index(path)
        arrays = {name: file[name] for name in ("images/size", "whole/features")}
        arrays |= {f"regions/{name}": data for name, data in file["regions"].items()}
        return {name: data[row] for name, data in arrays.items()}


def check(out: Path, path: str, one: Picture, k: int, ranked: bool = True, extras: bool = True):
    """A row holds what the picture has, in the right order, and zeros beyond."""
    row = held(out, path)
    order = (one.order if ranked else list(range(len(one.boxes))))[:k]
    n = len(order)
    expected = {
        "features": one.features.astype(np.float16),
        "boxes": one.boxes,
        "scores": one.conf if ranked else np.zeros(len(one.boxes)),
    }
    if extras:
        expected |= {"classes": one.classes, "attributes": one.attributes}
        expected |= {"attribute_scores": one.attr_conf}
    for name, values in expected.items():
        assert np.array_equal(row[f"regions/{name}"][:n], values[order]), name
        assert not row[f"regions/{name}"][n:].any(), name
    assert row["regions/count"] == n
    assert row["images/size"].tolist() == [one.width, one.height]
    mean = one.features.astype(np.float64).mean(0)
    assert np.allclose(row["whole/features"], mean, rtol=1e-3, atol=1e-6)
    assert set(row) == {"images/size", "whole/features", "regions/count"} | {
        f"regions/{name}" for name in expected
    }


# --- what is read is what was written ----------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_tsv_round_trip(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    columns = data.draw(st.sampled_from([lxmert, bottom_up]))
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    dim = data.draw(st.integers(1, 4))
    found = [picture(f"{i * 7 % 10}ä {i}", n, dim) for i, n in enumerate(counts)]
    source = write_tsv(folder / "a.tsv", found, columns, data.draw(st.sampled_from(["\n", "\r\n"])))
    text = source.read_bytes()
    if data.draw(st.booleans()):
        names = tsv.LXMERT if columns is lxmert else tsv.BOTTOM_UP
        text = "\t".join(names).encode() + b"\n" + text
    if data.draw(st.booleans()):
        text = b"\xef\xbb\xbf" + text
    if data.draw(st.booleans()):
        text = text.rstrip(b"\r\n")
    source.write_bytes(gzip.compress(text) if data.draw(st.booleans()) else text)
    k = data.draw(st.none() | st.integers(1, 6))
    out = folder / "x.h5"
    summary = imported(source, out, k=k, shard=data.draw(st.integers(1, 4)))
    assert (summary.rows, summary.failures) == (len(found), [])
    file = open_features(out)
    assert file.k == (k or max(counts))
    for one in found:
        check(out, one.id, one, file.k, columns is lxmert, columns is lxmert)
    assert examine(file).problems == []


@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_npz_round_trip(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    found = [picture(f"{i % 2}/p{i}", n, dim=7) for i, n in enumerate(counts)]
    across, has_info = data.draw(st.booleans()), data.draw(st.booleans())
    for one in found:
        changes = {} if has_info else {"info": None}
        write_npz(folder / "n", [one], **changes, x=one.features.T if across else one.features)
    out = folder / "x.h5"
    assert imported(folder / "n", out).failures == []
    for one in found:
        check(out, one.id, one, max(counts), has_info, has_info)


@pytest.mark.parametrize("leave_out", [(), ("scores",), ("count",), ("classes", "attributes")])
def test_arrays(tmp_path, leave_out):
    found = pictures(5)
    source = write_arrays(tmp_path / "arrays", found, leave_out)
    out = tmp_path / "x.h5"
    assert imported(source, out, shard=2).failures == []
    for one in found:
        if leave_out[:1] == ("classes",):
            assert "regions/classes" not in held(out, one.id)
            assert "regions/attribute_scores" in held(out, one.id)
        else:
            check(out, one.id, one, 4, leave_out != ("scores",))


def test_arrays_with_a_count_and_in_other_floats(tmp_path):
    found = pictures(2)
    source = write_arrays(tmp_path / "arrays", found)
    np.save(source / "features.npy", np.stack([one.features.astype(np.float64) for one in found]))
    np.save(source / "count.npy", np.array([2, 5]))
    imported(source)
    assert held(Path("x.h5"), "p000")["regions/count"] == 2
    assert failures() == [("p001", "has a count of 5, but 4 rows (row 1)")]
    cut = replace(found[0], **{
        name: getattr(found[0], name)[:2]
        for name in ("boxes", "features", "conf", "classes", "attributes", "attr_conf")
    })  # fmt: skip
    with h5py.File("x.h5") as file:
        assert file.attrs["k"] == 5
    check(Path("x.h5"), "p000", cut, 5)


def test_one_feature_a_picture(tmp_path):
    source = tmp_path / "arrays"
    source.mkdir()
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(source / "features.npy", features)
    np.save(source / "sizes.npy", np.array([[30, 20], [40, 50]]))
    (source / "paths.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\nb.jpg")
    assert imported(source).rows == 2
    row = held(Path("x.h5"), "b.jpg")
    assert row["regions/boxes"].tolist() == [[0, 0, 40, 50]]
    assert row["regions/features"].tolist() == [[3, 4, 5]]
    assert row["whole/features"].tolist() == [3, 4, 5]


def test_sizes_are_asked_of_the_pictures(tmp_path):
    found = [replace(one, width=30, height=20) for one in pictures(3)]
    for one in found:
        one.boxes[:] = (1, 2, 30, 20)
    source = write_arrays(tmp_path / "arrays", found, ("sizes",))
    (tmp_path / "pictures").mkdir()
    for name in ("p000", "p001"):
        Image.new("RGB", (30, 20)).save(tmp_path / "pictures" / f"{name}.png")
    imported(source, images=tmp_path / "pictures")
    assert held(Path("x.h5"), "p001.png")["images/size"].tolist() == [30, 20]
    where = tmp_path / "pictures" / "p002"
    assert failures() == [
        ("p002", f"has no size in the source, and {where} cannot be asked for it (row 2)")
    ]


def test_the_first_18_are_the_18_most_confident(tmp_path):
    found = [picture(f"p{i}", 36) for i in range(4)]
    source = write_tsv(tmp_path / "a.tsv", found)
    imported(source, Path("whole.h5"))
    imported(source, Path("half.h5"), k=18)
    for one in found:
        check(Path("whole.h5"), one.id, one, 36)
    with h5py.File("whole.h5") as whole, h5py.File("half.h5") as half:
        for name in whole["regions"]:
            if name != "count":
                assert np.array_equal(whole[f"regions/{name}"][:, :18], half[f"regions/{name}"])
        assert np.array_equal(whole["whole/features"], half["whole/features"])
        for i, one in enumerate(found):
            best = set(np.sort(one.conf)[-18:])
            assert set(half["regions/scores"][i]) == best


def test_readers_that_know_no_extras_read_it(tmp_path):
    found = pictures(6)
    imported(write_tsv(tmp_path / "a.tsv", found), shard=2)
    for mapped in (True, False):
        reader = RegionReader(Path("x.h5"), mapped=mapped)
        batch = reader.gather(reader.rows([one.id for one in found]))
        for one, features in zip(found, batch.features.numpy(), strict=True):
            assert np.array_equal(features, one.features.astype(np.float16)[one.order])


# --- names -------------------------------------------------------------------------------------


def test_ids_become_paths_of_pictures(tmp_path):
    for name in ("a/p000.jpg", "p001.PNG", "b/p002.jpg", "c/p002.jpg", "other.jpg"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).touch()
    source = write_tsv(tmp_path / "a.tsv", pictures(4))
    summary = imported(source, images=tmp_path / "pictures")
    file = open_features(summary.out)
    assert file.paths == ["a/p000.jpg", "p001.PNG", "p002", "p003"]
    assert file.image_root == str(tmp_path / "pictures")
    (note,) = summary.notes
    assert note == (
        f"Not matched: 2 ids name no picture in {tmp_path / 'pictures'}, or more than one, first"
        f" p002; they stand for paths as they are"
    )
    assert file.header.command == (f"cqr import {source} --k 4 --images {tmp_path / 'pictures'}")


def test_without_pictures_ids_are_paths_beside_the_source(tmp_path):
    (tmp_path / "deep").mkdir()
    source = write_tsv(tmp_path / "deep" / "a.tsv", pictures(2))
    file = open_features(imported(source).out)
    assert (file.paths, file.image_root) == (["p000", "p001"], str(tmp_path / "deep"))
    assert file.header.command == f"cqr import {source} --k 4"
    assert file.detector == {
        "name": "import",
        "format": "LXMERT TSV",
        "source": "a.tsv",
        "order": "confidence",
        "whole": "mean of the source's regions",
    }


def test_which_picture_an_id_means():
    coco = ["t/COCO_val2014_000000000042.jpg", "000000000007.jpg"]
    twice = ["u/000000000009.jpg", "v/COCO_x_000000000009.jpg"]
    names = Names(["a.jpg", "x/a.jpg", "x/b.jpg", "y/b.png", "x/c.d.jpg", *coco, *twice])
    for id, path in {
        "a.jpg": "a.jpg",
        "x/a.jpg": "x/a.jpg",
        "a": "a.jpg",
        "x/a": "x/a.jpg",
        "b": None,
        "b.png": "y/b.png",
        "c.d": "x/c.d.jpg",
        "COCO_val2014_000000000042": "t/COCO_val2014_000000000042.jpg",
        "42": "t/COCO_val2014_000000000042.jpg",
        "7": "000000000007.jpg",
        "9": None,
        "y/a": None,
        "": None,
    }.items():
        assert names.find(id) == path


def test_default_out(tmp_path):
    assert default_out(Path("/a/train2014_obj36.tsv.gz")) == Path("artifacts/train2014_obj36.h5")
    assert default_out(Path("/a/npz/")) == Path("artifacts/npz.h5")


def test_two_ids_of_one_picture(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "p000.jpg").touch()
    found = [picture("p000", 2), picture("p000.jpg", 2), picture("p000", 2, seed=1)]
    imported(write_tsv(tmp_path / "a.tsv", found), images=tmp_path / "pictures")
    check(Path("x.h5"), "p000.jpg", found[0], 2)
    assert failures() == [
        ("p000.jpg", "is there already, in line 1 (line 2)"),
        ("p000.jpg", "is there already, in line 1 (line 3)"),
    ]


# --- lines that cannot be used -----------------------------------------------------------------

FEATURES, BOXES = 9, 8
ALL = "classes, attributes, attribute_scores, confidences"


def broken(tmp_path: Path, change) -> list[tuple[str, str]]:
    """What is said if the line of the second of three pictures is changed."""
    found = pictures(3)
    made = [lxmert(one) for one in found]
    made[1] = change(found[1], made[1])
    (tmp_path / "a.tsv").write_text("".join("\t".join(line) + "\n" for line in made))
    summary = imported(tmp_path / "a.tsv", overwrite=True, k=4)
    assert open_features(summary.out).paths == [one.id for one in found if one.id != "p001"]
    for one in found:
        if one.id != "p001":
            check(summary.out, one.id, one, 4)
    return failures()


def column(index: int, value: str):
    return lambda one, line: [*line[:index], value, *line[index + 1 :]]


def with_arrays(**arrays):
    return lambda one, line: lxmert(replace(one, **{n: make(one) for n, make in arrays.items()}))


def put(name: str, place, value):
    def make(one: Picture) -> np.ndarray:
        array = getattr(one, name).copy()
        array[place] = value
        return array

    return with_arrays(**{name: make})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one, line: line[:-1], "has 9 columns, not 10"),
        (lambda one, line: [*line, "x"], "has 11 columns, not 10"),
        (column(1, "-3"), "has no number in img_h"),
        (column(2, ""), "has no number in img_w"),
        (column(2, "0"), None),
        (column(7, "4.0"), "has no number in num_boxes"),
        (column(7, "5"), "has 32 bytes of objects_id, not 40 for 5 regions"),
        (column(FEATURES, "AAA"), "has features whose base64 is cut off"),
        (column(FEATURES, "AAAA"), "has 3 bytes of features, which 4 regions cannot share"),
        (column(FEATURES, ""), "has 0 bytes of features, which 4 regions cannot share"),
        (column(FEATURES, "!" * 64), "has features that are no base64"),
        (column(BOXES, "AA=A" * 22 + "AAA="), None),
        (put("features", (2, 1), np.nan), "has features that are not finite"),
        (put("features", (2, 1), -np.inf), "has features that are not finite"),
        (
            put("features", (2, 1), 65520),
            "its feature 6.552e+04 is more than float16 holds (65504)",
        ),
        (put("boxes", (1, 2), np.nan), "has boxes that are not finite"),
        (put("conf", 3, np.nan), "has confidences that are not finite"),
        (put("attr_conf", 3, np.inf), "has attribute_scores that are not finite"),
        (put("classes", 3, 2**31), "has classes that are no 32-bit integers"),
        (put("attributes", 0, -(2**40)), "has attributes that are no 32-bit integers"),
        (put("boxes", 1, (9, 0, 8, 1)), "has the box (9, 0, 8, 1), which is none in "),
        (put("boxes", 1, (0, 0, 800, 1)), "has the box (0, 0, 800, 1), which is none in "),
        (put("boxes", 1, (-2, 0, 1, 1)), "has the box (-2, 0, 1, 1), which is none in "),
        (
            put("boxes", slice(None), (0, 0.1, 0.5, 1)),
            "has all boxes within its first pixel: they must be in pixels, no fractions",
        ),
        (
            with_arrays(features=lambda one: one.features[:, :2]),
            f"has 2 values a region, {ALL}, where most have 3 values a region, {ALL}",
        ),
        (
            with_arrays(
                **{
                    name: lambda one, name=name: getattr(one, name)[:0]
                    for name in ("boxes", "features", "conf", "classes", "attributes", "attr_conf")
                }
            ),
            "has no regions",
        ),
    ],
)
def test_a_broken_line_is_said_and_the_rest_is_there(tmp_path, change, reason):
    ((path, said),) = broken(tmp_path, change)
    assert path == "p001"
    assert said.endswith(" (line 2)")
    if reason is not None:
        assert said.startswith(reason)
        assert reason.endswith(" in ") or said == f"{reason} (line 2)"


def test_lines_without_a_name(tmp_path):
    assert broken(tmp_path, column(0, "")) == [("a.tsv:2", "has no id (line 2)")]
    glued = lambda one, line: [line[FEATURES] * 20, *line[1:]]  # noqa: E731
    assert broken(tmp_path, glued) == [("a.tsv:2", "has no id (line 2)")]
    lines = [b"\t".join(c.encode() for c in lxmert(one)) for one in pictures(2)]
    (tmp_path / "a.tsv").write_bytes(lines[0] + b"\n" + b"\xff" + lines[1] + b"\n")
    imported(tmp_path / "a.tsv", overwrite=True)
    assert failures() == [("a.tsv:2", "has an id that is not UTF-8 (line 2)")]


def test_quoted_ids_and_blank_lines(tmp_path):
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t")
    found = [replace(one, id=id) for one, id in zip(pictures(2), ['a "b"', "c,d"], strict=True)]
    writer.writerows(lxmert(one) for one in found)
    (tmp_path / "a.tsv").write_text("\n" + text.getvalue().replace("\r\n", "\r\n\r\n"), newline="")
    assert imported(tmp_path / "a.tsv").failures == []
    assert open_features(Path("x.h5")).paths == ['a "b"', "c,d"]


def test_rounding_is_clipped(tmp_path):
    found = pictures(3)
    for one in found:
        one.conf[:] = (1, 0, 0, 0)
    width, height = found[0].width, found[0].height
    found[0].boxes[0] = (-1, 0, width + 0.4, height + 1)
    found[1].boxes[0, 3] = found[1].height + 1.01
    found[2].boxes[0, 0] = -1.01
    imported(write_tsv(tmp_path / "a.tsv", found))
    assert held(Path("x.h5"), "p000")["regions/boxes"][0].tolist() == [0, 0, width, height]
    assert [path for path, _ in failures()] == ["p001", "p002"]


def test_a_killed_download(tmp_path):
    source = write_tsv(tmp_path / "a.tsv", pictures(3))
    whole = source.read_bytes()
    source.write_bytes(whole[:-40])
    summary = imported(source)
    assert summary.rows == 2
    ((path, reason),) = summary.failures
    assert path == "p002"
    assert reason.endswith(" (line 3, where the file ends)")
    source.write_bytes(whole)  # and gone on with
    summary = imported(source)
    assert (summary.rows, summary.computed, summary.kept) == (3, 1, 2)
    assert failures() == []


def test_a_killed_download_of_a_compressed_file(tmp_path):
    source = write_tsv(tmp_path / "a.tsv", pictures(50))
    whole = gzip.compress(source.read_bytes())
    source.write_bytes(whole[: len(whole) * 2 // 3])
    summary = imported(source)
    ((where, reason),) = summary.failures
    line = summary.rows + 1
    assert (where, reason) == (
        f"a.tsv:{line}",
        f"is cut off or damaged in its compression (line {line})",
    )
    assert 10 < summary.rows < 50
    for one in pictures(50)[: summary.rows]:
        check(Path("x.h5"), one.id, one, 4)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tsv, "MAX_LINE", 1 << 20)
    source = write_tsv(tmp_path / "a.tsv", pictures(1))
    with source.open("ab") as stream:
        stream.write(b"x" * (3 << 20))
    assert refusal(source) == (
        f"line 2 of {source} has more than 1 MiB: that is no TSV of region features"
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_damage_is_said_and_hurts_no_other_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    columns = data.draw(st.sampled_from([lxmert, bottom_up]))
    found = [picture(f"p{i}", n) for i, n in enumerate((2, 3, 1, 2))]
    lines = ["\t".join(columns(one)).encode() + b"\r\n" for one in found]
    hurt = data.draw(st.integers(0, 3))
    line = bytearray(lines[hurt])
    at = data.draw(st.integers(0, len(line) - 3))
    kind = data.draw(st.sampled_from(["truncate", "character", "cut out", "insert", "swap"]))
    if kind == "truncate":
        lines = [*lines[:hurt], bytes(line[: at + 1])]
        found = found[: hurt + 1]
    else:
        length = data.draw(st.integers(1, 9))
        junk = data.draw(st.binary(min_size=1, max_size=3).filter(lambda b: b"\n" not in b))
        if kind == "character":
            line[at] = data.draw(st.sampled_from(b'A9\t!="\x00\xff '))
        elif kind == "cut out":
            del line[at : min(at + length, len(line) - 2)]
        elif kind == "insert":
            line[at:at] = junk
        else:
            fields = bytes(line).split(b"\t")
            i, j = (data.draw(st.integers(0, len(fields) - 2)) for _ in "ij")
            fields[i], fields[j] = fields[j], fields[i]
            line = bytearray(b"\t".join(fields))
        lines[hurt] = bytes(line)
    (folder / "a.tsv").write_bytes(b"".join(lines))
    out = folder / "x.h5"
    try:
        summary = imported(folder / "a.tsv", out)
    except UserError:
        assert kind == "truncate"  # or another line would be there
        assert hurt == 0
        return
    blank = not lines[hurt].strip()
    assert summary.rows + len(summary.failures) == len(found) - blank
    file = open_features(out)
    for i, one in enumerate(found):
        if i != hurt:
            check(out, one.id, one, file.k, columns is lxmert, columns is lxmert)
    assert examine(file).problems == []


# --- files that cannot be used -----------------------------------------------------------------


def test_what_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == (
        f"{tmp_path / 'pipe'} is no regular file; it is read twice, so save it first"
    )
    assert refusal(tmp_path / "no") == (
        f"{tmp_path / 'no'} does not exist; name a TSV file or a folder of features"
    )
    (tmp_path / "a.tsv").write_text("a\tb\n" * 3)
    assert refusal(tmp_path / "a.tsv").startswith(
        f"{tmp_path / 'a.tsv'} holds no region features that cqr knows: none of its first 100"
        f" lines has the 6 columns of bottom-up-attention (image_id, image_w, "
    )
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") == (
        f"{tmp_path / 'folder'} holds no features that cqr knows: neither .npz files, one a"
        f" picture, nor X.npy beside X_info.npy, nor features.npy, boxes.npy and paths.txt"
    )
    good = write_tsv(tmp_path / os.fsdecode(b"\xff.tsv"), pictures(1))
    assert refusal(good) == f"the name of {tmp_path}/\\xff.tsv is not valid UTF-8; rename it"
    good = write_tsv(tmp_path / "b.tsv", pictures(1))
    assert refusal(good, k=0) == "--k is 0, it must be at least 1"
    assert refusal(good, out=Path("x.hdf")) == (
        "x.hdf cannot be a feature file; give --out a name that ends in .h5"
    )
    assert not Path("x.h5").exists()


def test_nothing_can_be_used(tmp_path):
    source = write_tsv(tmp_path / "a.tsv", pictures(2))
    source.write_text(source.read_text().replace("\t4\t", "\t7\t"))
    assert refusal(source) == (
        f"nothing in {source} can be used (the first of 2, p000 has 32 bytes of objects_id, not 56"
        f" for 7 regions (line 1))"
    )
    found = [replace(one, features=one.features * np.inf) for one in pictures(2)]
    write_tsv(source, found)
    assert refusal(source).startswith(
        f"none of the 2 pictures in {source} can be used (the first, 'p000', has features that are"
        f" not finite (line 1); all are in x.failures.csv)"
    )


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("boxes", np.zeros((2, 4, 3)), "boxes.npy is (2, 4, 3), but features.npy needs (2, 4, 4)"),
        ("sizes", np.zeros((2, 2)), "sizes.npy holds float64, not integers"),
        ("scores", np.array(["a"]), "scores.npy holds <U1, not numbers"),
        ("features", np.zeros(3), "features.npy must be N x K x D or N x D"),
        ("boxes", None, " has no boxes.npy; it is needed where a picture has regions"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, name, array, message):
    source = write_arrays(tmp_path / "arrays", pictures(2))
    (source / f"{name}.npy").unlink()
    if array is not None:
        np.save(source / f"{name}.npy", array)
    assert refusal(source) in (f"{source}/{message}", f"{source}{message}")


def test_arrays_and_their_paths(tmp_path):
    source = write_arrays(tmp_path / "arrays", pictures(3))
    (source / "paths.txt").write_text("a\n\nb\n\n")
    imported(source)
    assert open_features(Path("x.h5")).paths == ["a", "b"]
    assert failures() == [("paths.txt:2", "has no name (row 1)")]
    (source / "paths.txt").write_text("a\nb\n")
    assert refusal(source) == (
        f"{source / 'paths.txt'} names 2 pictures, but features.npy holds 3; each row needs its"
        f" line"
    )
    whole = (source / "features.npy").read_bytes()
    (source / "features.npy").write_bytes(whole[:-5])
    assert refusal(source).startswith(f"{source / 'features.npy'} cannot be read (")


def test_arrays_are_never_unpickled(tmp_path):
    source = write_arrays(tmp_path / "arrays", pictures(2))
    np.save(source / "scores.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    assert refusal(source).startswith(f"{source / 'scores.npy'} cannot be read (")
    assert not Path("bomb").exists()


# --- npz ---------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)


@pytest.mark.parametrize("protocol", [2, 3, 4])  # all that numpy has written
def test_info_is_read_without_running_anything(tmp_path, protocol):
    found = pictures(2)
    for one in found:
        write_npz(tmp_path / "n", [one], info=None)
        pickled = pickle.dumps(np.array(info(one), object), protocol)
        add_info(tmp_path / "n" / f"{one.id}.npz", pickled)
    assert imported(tmp_path / "n").failures == []
    for one in found:
        check(Path("x.h5"), one.id, one, 4)


def add_info(file: Path, pickled: bytes) -> None:
    """A pickle, as numpy stores an object."""
    with zipfile.ZipFile(file, "a") as archive, archive.open("info.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        stream.write(pickled)


def test_info_that_would_run_something(tmp_path):
    found = pictures(3)
    write_npz(tmp_path / "n", found[:1])
    write_npz(tmp_path / "n", found[1:2], info=None)
    add_info(tmp_path / "n" / "p001.npz", pickle.dumps(np.array({"a": Bomb()}, object)))
    assert imported(tmp_path / "n").rows == 1
    assert not Path("bomb").exists()
    assert failures() == [
        ("p001.npz", "is truncated or damaged (it asks for posix.mkdir)"),
    ]


def test_npz_that_cannot_be_used(tmp_path):
    source = tmp_path / "n"
    write_npz(source, pictures(1))
    odd = picture("odd", 4)
    reasons = {}
    for i, (changes, reason) in enumerate(
        [
            ({"x": None}, "has no x"),
            ({"x": np.zeros((5, 3))}, "has an x of (5, 3), which does not fit 4 boxes"),
            ({"bbox": np.zeros((4, 5))}, "has a bbox of (4, 5), not one of 4 columns"),
            ({"num_bbox": 5}, "has 4 boxes, but a num_bbox of 5"),
            ({"num_bbox": 0}, "has no regions"),
            ({"num_bbox": "4"}, "has <U1 in num_bbox, not numbers"),
            ({"image_w": None, "info": {**info(odd), "image_w": None}}, "has no number in image_w"),
            (
                {"info": {**info(odd), "objects_conf": odd.conf[:3]}},
                "has an objects_conf in its info that is no array of 4 numbers",
            ),
            (
                {"info": None},
                f"has 3 values a region, where most have 3 values a region, {ALL}",
            ),
        ]
    ):
        write_npz(source, [replace(odd, id=f"odd{i}")], **changes)
        reasons[f"odd{i}"] = reason
    write_npz(source, pictures(5))
    (source / "text.npz").write_text("text")
    whole = (source / "p004.npz").read_bytes()
    (source / "p004.npz").write_bytes(whole[:-30])
    summary = imported(source)
    assert open_features(summary.out).paths == [f"p{i:03d}" for i in range(4)]
    said = {path.removesuffix(".npz"): reason for path, reason in failures()}
    assert said.pop("text").startswith("is truncated or damaged (")
    assert said.pop("p004").startswith("is truncated or damaged (")
    assert said == reasons


def test_padded_npz_and_sizes_in_info_alone(tmp_path):
    one = picture("p", 3, dim=5)
    padded = {"x": np.pad(one.features, ((0, 2), (0, 0)), constant_values=7)}
    padded["bbox"] = np.pad(one.boxes, ((0, 2), (0, 0)))
    write_npz(tmp_path / "n", [one], **padded, image_h=None, image_w=None)
    assert imported(tmp_path / "n").failures == []
    check(Path("x.h5"), "p", one, 3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_npz_is_said(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    write_npz(folder / "n", pictures(2))
    whole = bytearray((folder / "n" / "p001.npz").read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4)) if whole else 0):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / "n" / "p001.npz").write_bytes(whole)
    out = folder / "x.h5"
    summary = imported(folder / "n", out)
    assert summary.rows + len(summary.failures) == 2
    check(out, "p000", pictures(1)[0], open_features(out).k)


# --- going on ----------------------------------------------------------------------------------


def marks(out: Path) -> dict[str, tuple[int, int]]:
    return {
        file.name: (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in shards_folder(out).glob("*.h5")
    }


def contents(out: Path) -> dict:
    file = open_features(out)
    return {name: [b.arrays[name].tolist() for b in file.blocks()] for name in file.header.layout}


def test_an_end_at_any_picture_is_made_good(tmp_path, monkeypatch):
    source = write_tsv(tmp_path / "a.tsv", pictures(7))
    imported(source, Path("plain.h5"), shard=2)
    read = tsv.Tsv.read
    for step in range(7):
        out = Path(f"{step}.h5")
        left = step

        def killed(self, entry):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return read(self, entry)

        with monkeypatch.context() as patch:
            patch.setattr(tsv.Tsv, "read", killed)
            with pytest.raises(KeyboardInterrupt):
                imported(source, out, shard=2)
        before = marks(out)
        assert len(before) == step // 2
        assert not out.exists()
        summary = imported(source, out, shard=2)
        assert (summary.rows, summary.computed) == (7, 7 - step // 2 * 2)
        assert before.items() <= marks(out).items()
        assert contents(out) == contents(Path("plain.h5"))
        assert imported(source, out).computed == 0


def test_shards_follow_the_source(tmp_path):
    found = [picture(name, 2) for name in ("d", "b", "c", "a", "e")]
    imported(write_tsv(tmp_path / "a.tsv", found), shard=2)
    assert open_features(Path("x.h5")).paths == ["b", "d", "a", "c", "e"]
    write_tsv(tmp_path / "a.tsv", [found[4], picture("f", 2), found[0], found[1]])
    summary = imported(tmp_path / "a.tsv")
    assert open_features(Path("x.h5")).paths == ["b", "d", "a", "c", "e", "f"]
    assert sorted(summary.gone) == ["a", "c"]


def test_mended_values_are_taken_on_request(tmp_path):
    found = pictures(4)
    bad = replace(found[1], features=found[1].features * np.nan)
    source = write_tsv(tmp_path / "a.tsv", [found[0], bad, *found[2:]])
    assert len(imported(source).failures) == 1
    write_tsv(source, found)
    assert len(imported(source).failures) == 1
    assert imported(source, retry_failed=True).failures == []
    assert open_features(Path("x.h5")).paths == [one.id for one in found]
    check(Path("x.h5"), "p001", found[1], 4)


def test_other_settings_are_refused(tmp_path):
    source = write_tsv(tmp_path / "a.tsv", pictures(2))
    imported(source)
    end = "; start again with --overwrite, or keep both with another --out"
    assert refusal(source, k=3) == f"x.h5 was begun with --k 4, not 3{end}"
    other = write_tsv(tmp_path / "b.tsv", pictures(2), bottom_up)
    assert refusal(other) == (
        f"x.h5 was begun with other settings (extras, format, order, source differ) by cqr import"
        f" {source} --k 4{end}"
    )
    assert imported(other, overwrite=True).rows == 2
    assert open_features(Path("x.h5")).header.extras == {}


# --- the commands ------------------------------------------------------------------------------


def test_the_command_and_inspect(tmp_path):
    found = [*pictures(3), picture("more", 6)]
    source = write_tsv(tmp_path / "train_obj.tsv", found, bottom_up)
    with source.open("a") as stream:
        stream.write("p004\t8\n")
    command = [sys.executable, "-m", "cqr.cli", "import", str(source), "--k", "5"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith(f"Source: bottom-up-attention TSV, {source}\n")
    lines, out = run.stdout.splitlines(), Path("artifacts/train_obj.h5")
    assert lines[0].startswith("Wrote artifacts/train_obj.h5: 4 pictures, ")
    assert lines[1] == "Imported 4 pictures in this run, kept 0"
    assert lines[2].startswith("Time: read ")
    assert lines[3:] == [
        "Failed: 1, listed in artifacts/train_obj.failures.csv",
        "  p004 has 2 columns, not 6 (line 5)",
        "Order: the source's own, not by confidence",
        "Cut: 1 pictures have more than 5 regions, up to 6; the first 5 are kept",
        f"Next: cqr search --features artifacts/train_obj.h5 --image {open_features(out).paths[0]}",
    ]
    run = cqr("inspect", "artifacts/train_obj.h5")
    assert run.returncode == 0, run.stderr
    assert "extras" not in run.stdout
    write_tsv(source, found)
    assert cqr("import", source, "--overwrite").returncode == 0
    run = cqr("inspect", "artifacts/train_obj.h5")
    assert "regions/attribute_scores, regions/attributes, regions/classes" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("All is well: ")


def test_inspect_looks_at_extras(tmp_path):
    imported(write_tsv(tmp_path / "a.tsv", [picture("a", 2), picture("b", 4)]))
    with h5py.File(shards_folder(Path("x.h5")) / "00000.h5", "a") as file:
        file["regions/attribute_scores"][1, 0] = np.nan
        file["regions/classes"][0, 3] = 7
    problems = examine(open_features(Path("x.h5"))).problems
    assert sorted(problems) == [
        "'a' has regions/classes beyond its count",
        "'b' has values in regions/attribute_scores that are not finite",
        "00000.h5 has lost its checksums: it was written to since",
    ]
