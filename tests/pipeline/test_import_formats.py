"""What a source of features does not say of itself, and the formats that are known by a look."""

import os

import numpy as np
import pytest
from PIL import Image

from cqr.errors import UserError
from cqr.pipeline.feature_file import open_features
from cqr.pipeline.imports import ImportJob, Names, import_features, open_source, tsv
from feature_sources import encoded


class Bomb:
    """Leaves a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("boxes", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_the_width_of_a_number_is_found_by_bytes_and_values(tmp_path, dtype, boxes, scale):
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(8, 64)) * scale, 0)  # half of them 0
    box = np.tile([1, 2, 30, 40], (8, 1))
    row = ["p", "50", "60", "8", encoded(box, boxes), encoded(features, dtype)]
    (tmp_path / "f.tsv").write_text("\t".join(row) + "\n")
    source = tsv.Tsv(tmp_path / "f.tsv")
    (entry,) = source.entries()
    assert entry.kind.dim == 64
    found = source.read(entry)
    np.testing.assert_array_equal(found.features, features.astype(dtype))
    np.testing.assert_array_equal(found.boxes, box)
    assert bool(source.notes) == (dtype != "<f4")


def test_d_is_said_at_import(tmp_path):
    rng = np.random.default_rng(0)
    row = ["p", "50", "60", "8", encoded(np.tile([1, 2, 30, 40], (8, 1)), "<f4")]
    row.append(encoded(rng.normal(size=(8, 64)), "<f2"))
    (tmp_path / "f.tsv").write_text("\t".join(row) + "\n")
    said = []
    import_features(ImportJob(tmp_path / "f.tsv", tmp_path / "o.h5"), say=said.append)
    assert said[1:] == [
        "Found: 1 pictures of up to 8 regions, 64 values a region",
        "Features: float16, by their values; as the usual float32 they would be noise",
    ]


def test_fields_printed_as_bytes_are_said_to_be_so(tmp_path):
    row = ["p", "50", "60", "1", repr(b"AACAPwAAgD8AAIA/AACAPw=="), repr(b"AACAPw==")]
    (tmp_path / "f.tsv").write_text("\t".join(row) + "\n")
    with pytest.raises(UserError, match=r"boxes written as b'...', as Python 3 prints bytes"):
        import_features(ImportJob(tmp_path / "f.tsv", tmp_path / "o.h5"))


def test_vinvl_holds_boxes_at_the_end_of_features(tmp_path):
    rng = np.random.default_rng(0)
    Image.new("RGB", (200, 100)).save(tmp_path / "7.png")
    features = rng.normal(size=(5, 128)).astype(np.float32)
    corners = np.sort(rng.random((2, 5, 2)), axis=0)
    box = np.concatenate([corners[0], corners[1], corners[1] - corners[0]], 1).astype(np.float32)
    row = ["7", "5", encoded(np.concatenate([features, box], 1), "<f4")]
    (tmp_path / "f.tsv").write_text("\t".join(row) + "\n")
    out = tmp_path / "o.h5"
    with pytest.raises(UserError, match="name the folder of the pictures with --images"):
        import_features(ImportJob(tmp_path / "f.tsv", out))
    import_features(ImportJob(tmp_path / "f.tsv", out, images=tmp_path))
    found = open_features(out).regions("7.png")
    np.testing.assert_array_equal(found.features, features.astype(np.float16))
    expected = box[:, :4] * np.float32([200, 100, 200, 100])
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-6)


def test_mmf_is_read(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 16)).astype(np.float32)
    box = np.tile(np.float32([1, 2, 30, 40]), (6, 1))
    about = {"bbox": box, "num_boxes": 4, "objects": np.arange(6), "image_width": 50}
    (tmp_path / "m" / "sub").mkdir(parents=True)
    np.save(tmp_path / "m/sub/p.npy", x)
    np.save(tmp_path / "m/sub/p_info.npy", about | {"image_height": 60})
    np.save(tmp_path / "m/q_info.npy", about)
    np.save(tmp_path / "m/r_info.npy", about | {"image_height": Bomb()})
    summary = import_features(ImportJob(tmp_path / "m", tmp_path / "o.h5"))
    assert sorted(failure.path for failure in summary.failures) == ["q", "r"]
    found = open_features(tmp_path / "o.h5").regions("sub/p")
    np.testing.assert_array_equal(found.features, x[:4].astype(np.float16))
    np.testing.assert_array_equal(found.boxes, box[:4])
    assert (found.width, found.height, found.count) == (50, 60, 4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_boxes", np.nan), ("num_boxes", 2.5), ("image_width", np.inf), ("image_w", [1, 2])],
)
def test_a_number_of_mmf_that_is_none_is_named(tmp_path, name, value):
    about = {"bbox": np.tile(np.float32([1, 2, 30, 40]), (6, 1)), "image_h": 60, "image_w": 50}
    for picture, change in (("p", {}), ("q", {name: value})):
        np.save(tmp_path / f"{picture}.npy", np.ones((6, 16), np.float32))
        np.save(tmp_path / f"{picture}_info.npy", about | change)
    [failure] = import_features(ImportJob(tmp_path, tmp_path / "o.h5")).failures
    assert failure.path == "q"
    assert "has no whole number in" in failure.reason


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, .*: read it with h5py"),
        (bytes(16) + b"\xde\xc0\xef\xbe" + bytes(100), "is an LMDB database: read it with"),
        (b"\x93NUMPY" + bytes(100), "is one array: name its folder"),
        (b"PK\x03\x04" + bytes(100), "is a zip or npz archive: name the folder"),
        (b'12\t{"num_boxes": 3}\n', "is a TSV of JSON, as VinVL's predictions are"),
    ],
)
def test_other_formats_are_known_by_their_first_bytes(tmp_path, head, sentence):
    (tmp_path / "f").write_bytes(head)
    with pytest.raises(UserError, match=sentence):
        open_source(tmp_path / "f")


def test_a_folder_of_lmdb_is_known(tmp_path):
    (tmp_path / "data.mdb").touch()
    with pytest.raises(UserError, match="is an LMDB database"):
        open_source(tmp_path)


def test_names_of_other_systems_are_matched_where_nothing_fits_exactly():
    names = Names(["caf\u00e9.png", "sub/b.png", "B.png"])
    assert names.find("cafe\u0301.png") == "caf\u00e9.png"
    assert names.find("sub\\b.png") == "sub/b.png"
    assert names.find("CAF\u00c9") == "caf\u00e9.png"
    assert names.find("B") == "B.png"  # exactly, though b.png is there too
    assert names.find("nothing") is None
    assert names.loose == ["cafe\u0301.png", "sub\\b.png", "CAF\u00c9"]
