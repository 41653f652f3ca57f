"""Regions for other programs: read back by numpy and pyarrow alone, and by our own import."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cqr.errors import UserError
from cqr.pipeline import exports
from cqr.pipeline.exports import export
from cqr.pipeline.feature_file import open_features, shards_folder
from cqr.pipeline.imports import ImportJob, import_features
from feature_sources import picture, write_tsv

K, DIM = 4, 3
PATHS = ["a/x.jpg", "a/y.jpg", "b/x.png", "ü.jpg", "z.jpg"]
COUNT = [4, 1, 3, 4, 2]


@pytest.fixture
def plain(write_features, tmp_path) -> Path:
    """Without extras, in two shards, rows in no order of their scores, as an extraction's are."""
    rng = np.random.default_rng(0)
    real = np.arange(K) < np.array(COUNT)[:, None]
    features = rng.normal(size=(len(PATHS), K, DIM)).astype("<f2") * real[..., None]
    boxes = np.sort(rng.integers(0, 300, (len(PATHS), K, 2, 2)), axis=2).reshape(-1, K, 4)
    out = write_features(
        tmp_path / "plain.h5", PATHS, features, boxes * real[..., None], COUNT, shard_size=3
    )
    for shard in sorted(shards_folder(out).glob("*.h5")):
        with h5py.File(shard, "a") as file:
            count = file["regions/count"][:]
            scores = rng.random((len(count), K)) * (np.arange(K) < count[:, None])
            file["regions/scores"][:] = scores
    return out


@pytest.fixture
def rich(tmp_path) -> Path:
    """With extras."""
    found = [picture(f"p{i}", n, DIM) for i, n in enumerate((2, 4, 1))]
    source = write_tsv(tmp_path / "rich.tsv", found)
    return import_features(ImportJob(source, tmp_path / "rich.h5", shard=2)).out


def exported(file: Path, out: Path, format: str) -> None:
    export(open_features(file), out, format, lambda done, total: None)


def refusal(file: Path, out: Path, format: str) -> str:
    with pytest.raises(UserError) as caught:
        exported(file, out, format)
    return str(caught.value)


def everything(out: Path) -> dict[str, dict[str, list]]:
    """By path, every dataset of one region a value, cut to the real ones, and the size."""
    with h5py.File(out) as file:
        found = {}
        for row, path in enumerate(file["images/path"].asstr()[:]):
            n = file["regions/count"][row]
            found[path] = {"size": file["images/size"][row].tolist()} | {
                name: data[row, :n].tolist()
                for name, data in file["regions"].items()
                if name != "count"
            }
        return found


# --- npz ---------------------------------------------------------------------------------------


def test_what_is_exported_is_imported(plain, rich, tmp_path):
    for file in (plain, rich):
        folder = tmp_path / f"{file.stem}.npz"
        exported(file, folder, "npz")
        back = tmp_path / f"{file.stem}-back.h5"
        summary = import_features(ImportJob(folder, back, k=K))
        assert summary.failures == []
        before, after = everything(file), everything(back)
        assert {path.rsplit(".", 1)[0] for path in before} == set(after)
        for path, what in before.items():
            assert after[path.rsplit(".", 1)[0]] == what
        assert set(open_features(back).header.extras) == set(open_features(file).header.extras)


def test_the_files_are_as_milvlg_writes_them(rich, tmp_path):
    exported(rich, tmp_path / "n", "npz")
    with h5py.File(rich) as file, np.load(tmp_path / "n" / "p0.npz", allow_pickle=True) as found:
        assert set(found) == {"x", "bbox", "num_bbox", "image_h", "image_w", "info"}
        assert found["x"].dtype == np.float32
        assert np.array_equal(found["x"], file["regions/features"][0, :2].astype("f4"))
        assert found["bbox"].dtype == np.float32
        assert np.array_equal(found["bbox"], file["regions/boxes"][0, :2])
        width, height = file["images/size"][0]
        numbers = [found[name].item() for name in ("num_bbox", "image_w", "image_h")]
        assert numbers == [2, width, height]
        info = found["info"].item()
        assert (info["image_id"], info["num_boxes"]) == ("p0", 2)
        assert (info["image_w"], info["image_h"]) == (width, height)
        for theirs, ours in {
            "objects_id": "classes",
            "objects_conf": "scores",
            "attrs_id": "attributes",
            "attrs_conf": "attribute_scores",
        }.items():
            assert np.array_equal(info[theirs], file[f"regions/{ours}"][0, :2])
        assert info["objects_id"].dtype == np.int64


def test_pictures_that_differ_in_their_suffix_alone(write_features, tmp_path):
    paths = ["a.jpg", "a.jpg.png", "a.png", "b.png"]
    features = np.arange(4 * K * DIM).reshape(4, K, DIM)
    out = write_features(tmp_path / "x.h5", paths, features, np.tile([0, 0, 9, 9], (4, K, 1)))
    exported(out, tmp_path / "n", "npz")
    assert sorted(path.name for path in (tmp_path / "n").iterdir()) == [
        f"{path}.npz" for path in paths
    ]
    back = import_features(ImportJob(tmp_path / "n", tmp_path / "back.h5")).out
    assert everything(back) == everything(out)


@pytest.mark.parametrize("path", ["/etc/a.jpg", "a/../../b.jpg", "../b.jpg"])
def test_no_file_leaves_the_folder(write_features, tmp_path, path):
    features = np.zeros((1, K, DIM))
    out = write_features(tmp_path / "x.h5", [path], features, np.tile([0, 0, 9, 9], (1, K, 1)))
    assert refusal(out, tmp_path / "n", "npz") == (
        f"the path {path!r} of {out} leads out of {tmp_path / 'n'}; export with --format parquet"
    )
    assert not (tmp_path / "n").exists()
    exported(out, tmp_path / "x.parquet", "parquet")
    assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == [path] * K


def test_an_end_in_a_folder_leaves_whole_files(plain, tmp_path, monkeypatch):
    folder = tmp_path / "n"
    write = np.lib.format.write_array
    left = 9  # of 6 members a picture

    def killed(stream, array):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        write(stream, array)

    with monkeypatch.context() as patch:
        patch.setattr(exports.np.lib.format, "write_array", killed)
        with pytest.raises(KeyboardInterrupt):
            exported(plain, folder, "npz")
    assert [path.relative_to(folder) for path in folder.rglob("*.*")] == [Path("a/x.npz")]
    (folder / "a" / ".y.npz.1a2b3c4d.partial").touch()  # what SIGKILL leaves
    exported(plain, folder, "npz")
    found = [str(path.relative_to(folder)) for path in folder.rglob("*.*")]
    assert sorted(found) == sorted(f"{path.rsplit('.', 1)[0]}.npz" for path in PATHS)


# --- parquet -----------------------------------------------------------------------------------


def test_the_table_holds_every_real_region(plain, rich, tmp_path):
    for file in (plain, rich):
        out = tmp_path / f"{file.stem}.parquet"
        exported(file, out, "parquet")
        table = pq.read_table(out)
        assert table.schema.field("feature").type == pa.list_(pa.float32(), DIM)
        rows = table.to_pylist()
        expected = [
            {
                "path": path,
                "region": i,
                "width": what["size"][0],
                "height": what["size"][1],
                **dict(zip(("x1", "y1", "x2", "y2"), what["boxes"][i], strict=True)),
                "score": what["scores"][i],
                **{
                    column: what[name][i]
                    for column, name in {
                        "class": "classes",
                        "attribute": "attributes",
                        "attribute_score": "attribute_scores",
                    }.items()
                    if name in what
                },
                "feature": what["features"][i],
            }
            for path, what in everything(file).items()
            for i in range(len(what["scores"]))
        ]
        assert rows == expected
        about = json.loads(table.schema.metadata[b"cqr"])
        assert about["command"] == open_features(file).header.command


def test_row_groups_are_blocks(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("cqr.pipeline.feature_file.BLOCK", 2)
    exported(plain, tmp_path / "x.parquet", "parquet")
    found = pq.ParquetFile(tmp_path / "x.parquet").metadata
    groups = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
    assert groups == [4 + 1, 3, 4 + 2]  # two shards: three pictures and two


def test_an_end_in_the_table_leaves_what_was_there(plain, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"
    table = exports._table

    def killed(rows, schema):
        if rows.paths[0] == PATHS[3]:
            raise KeyboardInterrupt
        return table(rows, schema)

    for before in (None, b"older"):
        if before:
            out.write_bytes(before)
        with monkeypatch.context() as patch:
            patch.setattr(exports, "_table", killed)
            with pytest.raises(KeyboardInterrupt):
                exported(plain, out, "parquet")
        assert (out.read_bytes() if out.exists() else None) == before
        assert {path.name for path in tmp_path.glob(".*")} == set()
    exported(plain, out, "parquet")
    assert pq.read_table(out).num_rows == sum(COUNT)


# --- the command -------------------------------------------------------------------------------


def test_what_cannot_be(plain, tmp_path):
    assert refusal(plain, tmp_path / "x", "csv") == (
        "no format is named csv; choose --format from npz, parquet"
    )
    assert refusal(plain, plain, "npz") == (
        f"{plain} is a file; npz needs a folder, name another with --out"
    )
    assert refusal(plain, tmp_path, "parquet") == (
        f"{tmp_path} is a folder; parquet needs a file, name another with --out"
    )


@pytest.mark.parametrize("format", ["npz", "parquet"])
def test_the_command(plain, format):
    words = [sys.executable, "-m", "cqr.cli", "export", str(plain), "--format", format]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    out = plain.with_suffix(f".{format}")
    assert run.stdout == f"Wrote {out}: 5 pictures\n"
    assert out.exists()
