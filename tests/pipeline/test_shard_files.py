"""Shards and the joining file, value by value: what each is made of, and what is refused."""

import dataclasses
import hashlib
import json
import warnings
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest

from cqr.errors import UserError
from cqr.listing import Failure
from cqr.pipeline import feature_file, shards, sums
from cqr.pipeline.regions import Regions
from cqr.pipeline.shards import BadShard, Header, Rows

DETECTOR = {"name": "fake", "a": [1, {"z": 0, "b": 1}]}
SORTED = '{"a": [1, {"b": 1, "z": 0}], "name": "fake"}'
HEADER = Header("id", "2026-01-01", 2, 3, DETECTOR, "/pictures", "cqr extract", "0.1")
DATASETS = {
    "images/size": ((2,), "int32"),
    "regions/features": ((2, 3), "float16"),
    "regions/boxes": ((2, 4), "float32"),
    "regions/scores": ((2,), "float32"),
    "regions/count": ((), "int32"),
    "whole/features": ((3,), "float16"),
}


def regions(value=1.0, whole=0.0):
    return Regions(
        features=np.full((2, 3), value, np.float32),
        boxes=np.arange(8, dtype=np.float32).reshape(2, 4),
        scores=np.array([0.5, 0.25], np.float32),
        whole=np.full(3, whole, np.float32),
        width=40,
        height=30,
        count=2,
    )


def rows_of(*paths):
    rows = Rows.empty(2, 3, len(paths))
    for i, path in enumerate(paths):
        rows.put(i, path, regions(i + 1, whole=i))
    return rows


def shard(path, *paths, header=HEADER, failures=()):
    shards.write_shard(path, header, rows_of(*paths), failures)
    return path


def refused(path, header=HEADER):
    with pytest.raises(BadShard) as caught:
        shards.read_shard(path, header)
    assert caught.value.shard == path
    assert str(caught.value) == f"shard {path} {caught.value.reason}"
    return caught.value.reason


# --- the header --------------------------------------------------------------------------------


def test_a_new_header_has_its_own_name_and_says_when_and_by_what_it_was_made():
    given = {"k": 2, "dim": 3, "detector": DETECTOR, "image_root": "/p", "command": "cqr"}
    one, other = Header.new(**given), Header.new(**given)
    assert one.set_id != other.set_id
    assert len(bytes.fromhex(one.set_id)) == 16
    made = datetime.fromisoformat(one.created)
    assert timedelta() <= datetime.now(UTC) - made < timedelta(minutes=1)
    assert made.isoformat(timespec="seconds") == one.created
    assert (one.made_by, one.warning, one.extras) == (version("cqr"), "", {})


def test_attributes_are_all_of_a_header_and_the_way_back():
    header = dataclasses.replace(HEADER, warning="careful", extras={"z": "<f4", "b": "<i4"})
    extras = '{"b": "<i4", "z": "<f4"}'
    parts = f'{{"detector": {SORTED}, "dim": 3, "extras": {extras}, "k": 2}}'
    attributes = {
        "format": "cqr-regions", "version": 2, "set": "id",
        "settings": hashlib.sha256(parts.encode()).hexdigest(), "created": "2026-01-01",
        "k": 2, "dim": 3, "detector": SORTED, "image_root": "/pictures",
        "command": "cqr extract", "cqr_version": "0.1", "warning": "careful",
        "extras": extras,
    }  # fmt: skip
    assert header.attributes() == attributes
    assert Header.of(attributes) == header
    del attributes["extras"]
    assert Header.of(attributes) == dataclasses.replace(header, extras={})


@pytest.mark.parametrize("text", ["[]", "3", "{", '{"a": "no type"}', '{"a": 3}'])
def test_extras_that_are_no_types_are_an_error_of_the_value(text):
    with pytest.raises(ValueError, match=r"extras|Expecting"):
        Header.of(HEADER.attributes() | {"extras": text})


# --- rows --------------------------------------------------------------------------------------


def test_rows_are_empty_then_filled_one_by_one():
    rows = Rows.empty(2, 3, 2, {"regions/classes": "<i4"})
    assert rows.paths == ["", ""]
    shapes = {name: (array.shape, str(array.dtype)) for name, array in rows.arrays.items()}
    expected = DATASETS | {"regions/classes": ((2,), "int32")}
    assert shapes == {name: ((2, *shape), dtype) for name, (shape, dtype) in expected.items()}
    assert not any(array.any() for array in rows.arrays.values())
    rows.put(1, "b", regions(7, whole=5))
    assert rows.paths == ["", "b"]
    assert {name: array[1].tolist() for name, array in rows.arrays.items()} == {
        "images/size": [40, 30],
        "regions/features": [[7, 7, 7]] * 2,
        "regions/boxes": [[0, 1, 2, 3], [4, 5, 6, 7]],
        "regions/scores": [0.5, 0.25],
        "regions/count": 2,
        "whole/features": [5, 5, 5],
        "regions/classes": [0, 0],
    }
    assert not any(array[0].any() for array in rows.arrays.values())


@pytest.mark.parametrize("which", [{"value": -70000}, {"value": 2, "whole": 70000}])
def test_what_float16_does_not_hold_is_refused_without_a_warning(which):
    rows = Rows.empty(2, 3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sentence = r"its feature 7e\+04 is more than float16 holds \(65504\)"
        with pytest.raises(OverflowError, match=sentence):
            rows.put(0, "a", regions(**which))
    assert rows.paths == [""]


def test_merged_rows_stand_in_the_order_of_their_paths():
    both = rows_of("d", "a").merged(rows_of("c", "b"))
    assert both.paths == ["a", "b", "c", "d"]
    assert both.arrays["regions/features"][:, 0, 0].tolist() == [2, 2, 1, 1]
    assert both.arrays["whole/features"][:, 0].tolist() == [1, 1, 0, 0]
    ordered = rows_of("a", "b")
    assert ordered.take([0, 1]) is ordered  # not copied
    assert ordered.take([1]).paths == ["b"]


# --- one shard ---------------------------------------------------------------------------------


def test_a_shard_is_as_documented(tmp_path):
    failures = [Failure("x.png", "is damaged"), Failure("ö.png", "is missing")]
    path = shard(tmp_path / "new" / "0.h5", "ä/b.png", "c", failures=failures)
    parts = f'{{"detector": {SORTED}, "dim": 3, "k": 2}}'
    with h5py.File(path) as file:
        assert dict(file.attrs) == {
            "format": "cqr-regions-shard", "version": 2, "set": "id",
            "settings": hashlib.sha256(parts.encode()).hexdigest(),
        }  # fmt: skip
        found = {}

        def look(name, data):
            if isinstance(data, h5py.Dataset):
                found[name] = data

        file.visititems(look)
        numbers = {name: (data.shape, str(data.dtype)) for name, data in found.items()
                   if data.dtype.kind != "O"}  # fmt: skip
        assert numbers == {name: ((2, *shape), dtype) for name, (shape, dtype) in DATASETS.items()}
        texts = {name: data for name, data in found.items() if data.dtype.kind == "O"}
        assert {h5py.check_string_dtype(data.dtype).encoding for data in texts.values()} == {
            "utf-8"
        }
        assert {name: data.asstr()[:].tolist() for name, data in texts.items()} == {
            "images/path": ["ä/b.png", "c"],
            "failures/path": ["x.png", "ö.png"],
            "failures/reason": ["is damaged", "is missing"],
        }
    assert shards.shard_contents(path, HEADER) == (["ä/b.png", "c"], failures)
    assert shards.read_shard(path, HEADER)[1] == failures


def test_a_shard_of_failures_alone_has_nothing_to_map(tmp_path):
    path = shard(tmp_path / "0.h5", failures=[Failure("x", "y")])
    with shards.opened(path, HEADER) as (_, offsets):
        assert offsets == dict.fromkeys(DATASETS, 0)
    assert shards.read_shard(path, HEADER)[0].paths == []


def test_what_is_mapped_starts_at_a_multiple_of_64_from_64_bytes_on(tmp_path):
    path = shard(tmp_path / "0.h5", *"abcdefgh")  # whose sizes are 64 bytes
    with shards.opened(path, HEADER) as (_, offsets):
        assert all(type(offset) is int for offset in offsets.values())
        assert [offsets[name] % 64 for name in DATASETS if name != "regions/count"] == [0] * 5
        mapped = np.memmap(path, "<i4", "r", offsets["images/size"], (8, 2))
    assert mapped.tolist() == [[40, 30]] * 8


def test_a_file_that_was_begun_and_not_ended_is_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), shards.written(tmp_path / "a.h5"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_shard_is_refused(tmp_path):
    path = tmp_path / "0.h5"
    assert refused(path) == "is missing"
    path.write_text("text")
    assert refused(path) == "is truncated or damaged"
    for attribute, value in (("format", "cqr-regions"), ("version", 3)):
        shard(path, "a")
        with h5py.File(path, "a") as file:
            file.attrs[attribute] = value
        assert refused(path) == "is not a cqr-regions-shard file of version 1 or 2"
    h5py.File(path, "w").close()
    assert refused(path) == "is not a cqr-regions-shard file of version 1 or 2"


def test_a_shard_of_other_settings_or_another_set_is_refused(tmp_path):
    path = shard(tmp_path / "0.h5", "a")
    for change in ({"set_id": "else"}, {"k": 1}, {"extras": {"b": "<i4"}}):
        assert refused(path, dataclasses.replace(HEADER, **change)) == "belongs to another set"


def test_a_shard_without_a_list_of_paths_is_refused(tmp_path):
    path = tmp_path / "0.h5"
    for paths in (None, "a group", np.zeros((1, 1)), np.zeros(())):
        shard(path, "a")
        with h5py.File(path, "a") as file:
            del file["images/path"]
            if isinstance(paths, str):
                file.create_group("images/path")
            elif paths is not None:
                file["images/path"] = paths
        assert refused(path) == "has no images/path"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (None, "has no regions/scores"),
        ("a group", "has no regions/scores"),
        (np.zeros((2, 2), "<f4"), "of (2, 2) float32, not (1, 2) float32"),
        (np.zeros((1, 2), "<f8"), "of (1, 2) float64, not (1, 2) float32"),
        ({"shape": (1, 2), "dtype": "<f4", "chunks": (1, 1)}, "that is not contiguous"),
        ({"shape": (1, 2), "dtype": "<f4"}, "that is not contiguous"),  # never allocated
    ],
)
def test_a_dataset_that_cannot_be_mapped_is_refused(tmp_path, made, reason):
    path = shard(tmp_path / "0.h5", "a")
    with h5py.File(path, "a") as file:
        del file["regions/scores"]
        if isinstance(made, str):
            file.create_group("regions/scores")
        elif isinstance(made, dict):
            file.create_dataset("regions/scores", **made)
        elif made is not None:
            file["regions/scores"] = made
    said = reason if reason.startswith("has no") else f"has regions/scores {reason}"
    assert refused(path) == said


@pytest.mark.parametrize(("beyond", "good"), [(-1, True), (0, True), (1, False), (2**40, False)])
def test_a_dataset_that_ends_after_the_file_does_is_refused(tmp_path, beyond, good):
    path = shard(tmp_path / "0.h5", *"abcdefgh")
    with shards.opened(path, HEADER) as (_, offsets):
        start, length = offsets["regions/boxes"], 8 * 2 * 4 * 4
    content = path.read_bytes()[: sums.Sums.read(path).size]  # these would show it at once
    address = start.to_bytes(8, "little")
    assert content.count(address) == 1  # where HDF5 keeps it
    moved = len(content) - length + beyond
    path.write_bytes(content.replace(address, moved.to_bytes(8, "little")))
    if good:
        with shards.opened(path, HEADER) as (_, offsets):
            assert offsets["regions/boxes"] == moved
    else:
        # HDF5 2.0 finds it, too, and does not open the dataset
        assert refused(path) in ("is truncated or damaged", "has no regions/boxes")


# --- the joining file --------------------------------------------------------------------------


def joined(out, *parts, header=HEADER):
    files = [
        shard(feature_file.shards_folder(out) / f"{i}.h5", *paths, header=header)
        for i, paths in enumerate(parts)
    ]
    assert feature_file.join(out, header, files) == sum(map(len, parts))
    return out


def refusal(out):
    with pytest.raises(UserError) as caught:
        feature_file.open_features(out)
    return str(caught.value)


def test_a_feature_file_is_its_shards(tmp_path):
    out = joined(tmp_path / "a.b.h5", "ab", "", "c")
    assert feature_file.shards_folder(out) == tmp_path / "a.b.shards"
    opened = feature_file.open_features(str(out))
    assert (opened.path, opened.header, opened.paths) == (out, HEADER, ["a", "b", "c"])
    assert (opened.k, opened.dim, opened.detector, opened.image_root) == (
        2, 3, DETECTOR, "/pictures",
    )  # fmt: skip
    assert opened.sizes.tolist() == [[40, 30]] * 3
    assert [(one.path.name, one.first, one.rows) for one in opened.shards] == [
        ("0.h5", 0, 2), ("2.h5", 2, 1),
    ]  # fmt: skip
    with h5py.File(out) as file:
        assert file.attrs["shards"] == "a.b.shards"
        assert file["shards/file"].asstr()[:].tolist() == ["0.h5", "2.h5"]
        assert file["shards/rows"][:].tolist() == [2, 1]
        assert file["regions/features"][:, 0, 0].tolist() == [1, 2, 1]
        assert not file["images/size"].is_virtual


def test_all_rows_come_in_blocks_of_at_most_128_that_end_with_a_shard(tmp_path):
    names = [f"{i:03d}" for i in range(133)]
    opened = feature_file.open_features(joined(tmp_path / "a.h5", names[:130], names[130:]))
    blocks = list(opened.blocks())
    assert [len(block.paths) for block in blocks] == [128, 2, 3]
    assert [path for block in blocks for path in block.paths] == names
    assert list(blocks[0].arrays) == list(DATASETS)
    values = np.concatenate([block.arrays["regions/features"][:, 0, 0] for block in blocks])
    assert values.tolist() == [*range(1, 131), 1, 2, 3]


def test_a_feature_file_may_be_of_no_picture(tmp_path):
    for parts in ((), ("",)):
        opened = feature_file.open_features(joined(tmp_path / "a.h5", *parts))
        assert (opened.paths, opened.sizes.shape, opened.shards) == ([], (0, 2), [])
        assert list(opened.blocks()) == []


@pytest.mark.parametrize("name", ["images/path", "images/size", "shards/file", "shards/rows"])
def test_a_joining_file_that_lacks_something_is_refused(tmp_path, name):
    out = joined(tmp_path / "a.h5", "ab", "c")
    mend = f"make it again with: cqr extract --out {out}"
    with h5py.File(out, "a") as file:
        kept = file[name][:-1]
        del file[name]
    assert refusal(out).startswith(f"{out} is damaged (")
    assert refusal(out).endswith(f"); {mend}")
    with h5py.File(out, "a") as file:
        file[name] = kept
    if name.startswith("shards"):
        assert refusal(out).startswith(f"{out} is damaged (")
    else:
        pictures = 2 if name == "images/path" else 3
        assert refusal(out) == f"{out} names {pictures} pictures, its shards hold 3; {mend}"


def test_a_joining_file_of_fewer_shards_than_pictures_is_refused(tmp_path):
    out = joined(tmp_path / "a.h5", "ab", "c")
    with h5py.File(out, "a") as file:
        for name in ("shards/file", "shards/rows"):
            kept = file[name][:1]
            del file[name]
            file[name] = kept
    assert "names 3 pictures, its shards hold 2; " in refusal(out)


def test_every_shard_that_cannot_be_used_is_counted(tmp_path):
    out = joined(tmp_path / "a.h5", "a", "b", "c", "d")
    folder = feature_file.shards_folder(out)
    end = f"(HDF5 would read zeros); make it again with: cqr extract --out {out}"
    for number, more in ((3, ""), (2, ", and 1 more cannot be used"), (0, ", and 2 more cannot")):
        (folder / f"{number}.h5").unlink()
        start = f"shard {folder}/{number}.h5 of {out} is missing{more}"
        assert refusal(out).startswith(start)
        assert refusal(out).endswith(end)


@pytest.mark.parametrize("text", ["{", '{"a": 3}'])
def test_a_header_that_is_damaged_is_refused(tmp_path, text):
    out = joined(tmp_path / "a.h5", "a")
    with h5py.File(out, "a") as file:
        file.attrs["extras"] = text
    assert refusal(out).startswith(f"{out} is damaged (attribute ")
    with h5py.File(out, "a") as file:
        del file.attrs["k"]
    assert refusal(out).endswith("; extract again with --overwrite")


def test_of_an_error_with_several_lines_the_first_is_said(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("one\ntwo\nthree")

    monkeypatch.setattr(sums, "check", lambda path: None)
    monkeypatch.setattr(h5py, "File", broken)
    assert refusal(Path("a.h5")) == (
        "a.h5 is truncated or no feature file (one); make it again with:"
        " cqr extract --images DIR --out a.h5"
    )


def test_the_attributes_are_text_and_whole_numbers(tmp_path):
    with h5py.File(joined(tmp_path / "a.h5", "a")) as file:
        found = {
            name: value if isinstance(value, str) else int(value)
            for name, value in file.attrs.items()
        }
    assert found == HEADER.attributes() | {"shards": "a.shards"}
    assert json.loads(found["detector"]) == DETECTOR
