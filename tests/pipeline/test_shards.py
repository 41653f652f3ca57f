"""The feature file: what is written is read; what HDF5 would hide is said."""

import dataclasses
import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.listing import Failure
from cqr.pipeline import feature_file, shards
from cqr.pipeline.shards import BadShard, Header, Rows

COMMAND = "cqr extract --images /pictures --k 3"


def header(k: int = 3, dim: int = 2) -> Header:
    return Header("id", "2026-01-01", k, dim, {"name": "fake"}, "/pictures", COMMAND, "0.1")


def rows_of(paths: list[str], k: int = 3, dim: int = 2) -> Rows:
    rows = Rows.empty(k, dim, len(paths))
    random = np.random.default_rng(len(paths))
    for name, array in rows.arrays.items():
        array[...] = random.integers(1, 50, array.shape)
        if name == "regions/count":
            array[...] = k
    return Rows(paths, rows.arrays)


def written(out: Path, *parts: list[str]) -> list[Path]:
    files = []
    for i, paths in enumerate(parts):
        files.append(feature_file.shards_folder(out) / f"{i:05d}.h5")
        shards.write_shard(files[-1], header(), rows_of(paths))
    feature_file.join(out, header(), files)
    return files


# --- round trips -------------------------------------------------------------------------------

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=12
)
dtypes = st.sampled_from(["<i4", "<f4", "<f2"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_what_is_written_is_read(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("any") / data.draw(st.sampled_from(["a.h5", "%d b.h5", "ä.h5"]))
    k, dim = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    extras = data.draw(st.dictionaries(st.sampled_from(["regions/a", "b"]), dtypes))
    head = dataclasses.replace(header(k, dim), warning=data.draw(names), extras=extras)
    sets = data.draw(st.lists(st.lists(names, unique=True, max_size=4), min_size=1, max_size=3))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    files, expected = [], []
    for i, paths in enumerate(sets):
        arrays = {  # any bytes, so NaN and infinities, too
            name: np.frombuffer(
                random.bytes(dtype.itemsize * len(paths) * int(np.prod(shape))), dtype
            ).reshape(len(paths), *shape)
            for name, (shape, dtype) in shards.layout(k, dim, extras).items()
        }
        failures = [Failure(*f) for f in data.draw(st.lists(st.tuples(names, names), max_size=2))]
        file = feature_file.shards_folder(out) / f"{i:05d}.h5"
        shards.write_shard(file, head, Rows(sorted(paths), arrays), failures)
        rows, found = shards.read_shard(file, head)
        assert rows.paths == sorted(paths)
        assert found == failures
        assert shards.shard_contents(file, head) == (rows.paths, failures)
        for name, array in arrays.items():
            assert rows.arrays[name].tobytes() == array.tobytes()
        files.append(file)
        expected.append(rows)
    total = feature_file.join(out, head, files)
    assert total == sum(len(rows.paths) for rows in expected)
    opened = feature_file.open_features(out)
    assert opened.header == head
    assert opened.paths == [path for rows in expected for path in rows.paths]
    with h5py.File(out) as file:  # as any HDF5 tool sees it
        for name in shards.layout(k, dim, extras):
            through = b"".join(rows.arrays[name].tobytes() for rows in expected)
            assert file[name][:].tobytes() == through
    for shard in opened.shards:  # as a reader that maps the file
        for name, (shape, dtype) in shards.layout(k, dim, extras).items():
            mapped = np.memmap(
                shard.path, dtype, "r", shard.offsets[name], (shard.rows, *shape), "C"
            )
            with h5py.File(out) as file:
                through = file[name][shard.first : shard.first + shard.rows]
            assert mapped.tobytes() == through.tobytes()


def test_attributes_are_as_documented(tmp_path):
    written(tmp_path / "a.h5", ["x"])
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = dict(file.attrs)
        assert file["regions/features"].dtype == np.float16
        assert file["regions/features"].is_virtual
    assert attributes["format"] == "cqr-regions"
    assert attributes["version"] == 2
    assert attributes["detector"] == '{"name": "fake"}'
    assert (attributes["k"], attributes["dim"], attributes["image_root"]) == (3, 2, "/pictures")


def test_extras_are_settings_and_files_without_them_are_as_they_were(tmp_path):
    """The hash is that of files which were written before there were extras."""
    plain = header()
    more = dataclasses.replace(plain, extras={"regions/classes": "<i4"})
    parts = b'{"detector": {"name": "fake"}, "dim": 2, "k": 3}'
    assert plain.settings == hashlib.sha256(parts).hexdigest()
    assert more.settings != plain.settings
    out = tmp_path / "a.h5"
    written(out, ["p"])
    with h5py.File(out, "a") as file:
        del file.attrs["extras"]
    assert feature_file.open_features(out).header == plain
    for text in ("[]", '{"a": "no type"}', '{"a": 3}', "{"):
        with h5py.File(out, "a") as file:
            file.attrs["extras"] = text
        assert refusal(out).startswith(f"{out} is damaged (attribute ")


def test_both_can_be_moved_together_and_read_from_anywhere(tmp_path, monkeypatch):
    written(tmp_path / "a" / "x.h5", ["p", "q"], ["r"])
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b" / "x.h5").rename(tmp_path / "b" / "y.h5")
    monkeypatch.chdir("/")
    assert feature_file.open_features(tmp_path / "b" / "y.h5").paths == ["p", "q", "r"]
    with h5py.File(tmp_path / "b" / "y.h5") as file:
        assert (file["regions/count"][:] == 3).all()


def test_large_datasets_start_at_multiples_of_64(tmp_path):
    shards.write_shard(tmp_path / "0.h5", header(), rows_of([f"{i:03d}" for i in range(100)]))
    feature_file.join(tmp_path / "x.h5", header(), [])
    feature_file.shards_folder(tmp_path / "x.h5").mkdir()
    (tmp_path / "0.h5").rename(tmp_path / "x.shards" / "0.h5")
    feature_file.join(tmp_path / "x.h5", header(), [tmp_path / "x.shards" / "0.h5"])
    offsets = feature_file.open_features(tmp_path / "x.h5").shards[0].offsets
    assert all(offset % 64 == 0 for offset in offsets.values())


# --- what HDF5 would hide ----------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        feature_file.open_features(path)
    return str(caught.value)


def mend(out: Path) -> str:
    return f"make it again with: {COMMAND} --out {out}"


def zeros(out: Path, reason: str, shard: Path, more: str = "") -> str:
    return f"shard {shard} of {out} {reason}{more} (HDF5 would read zeros); {mend(out)}"


def test_missing_file(tmp_path):
    out = tmp_path / "a.h5"
    assert refusal(out) == (
        f"no feature file {out}; make it with: cqr extract --images DIR --out {out}"
    )


def test_not_hdf5_or_truncated(tmp_path):
    out = tmp_path / "a.h5"
    end = f"; make it again with: cqr extract --images DIR --out {out}"
    out.write_text("text")
    assert refusal(out).startswith(f"{out} is truncated or no feature file (")
    assert refusal(out).endswith(end)
    written(out, ["p"])
    out.write_bytes(out.read_bytes()[:-100])
    assert refusal(out).startswith(f"{out} is truncated or no feature file (")
    assert refusal(out).endswith(end)


def test_another_format_and_another_version(tmp_path):
    out = tmp_path / "a.h5"
    h5py.File(out, "w").close()
    assert refusal(out) == (
        f"{out} is not a feature file; make one with: cqr extract --images DIR --out FILE"
    )
    written(out, ["p"])
    with h5py.File(out, "a") as file:
        file.attrs["version"] = 3
    assert refusal(out) == (
        f"{out} is of version 3, this cqr reads 1 and 2: update cqr, or extract again with"
        f" --overwrite"
    )


def test_missing_shards(tmp_path):
    out = tmp_path / "a.h5"
    files = written(out, ["p"], ["q"], ["r"])
    files[1].unlink()
    with h5py.File(out) as file:  # why the check is there
        assert file["regions/count"][:].tolist() == [3, 0, 3]
    assert refusal(out) == zeros(out, "is missing", files[1])
    files[2].unlink()
    assert refusal(out) == zeros(out, "is missing", files[1], ", and 1 more cannot be used")


def test_truncated_shard(tmp_path):
    out = tmp_path / "a.h5"
    files = written(out, ["p"], ["q"])
    whole = files[0].read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        files[0].write_bytes(whole[:length])
        assert refusal(out) == zeros(out, "is truncated or damaged", files[0])


def test_shard_of_another_set(tmp_path):
    out = tmp_path / "a.h5"
    files = written(out, ["p"], ["q"])
    for other in (
        dataclasses.replace(header(), set_id="other"),
        dataclasses.replace(header(), detector={"name": "other"}),
    ):
        shards.write_shard(files[0], other, rows_of(["p"]))
        assert refusal(out) == zeros(out, "belongs to another set", files[0])


def test_shard_with_other_rows(tmp_path):
    out = tmp_path / "a.h5"
    files = written(out, ["p"], ["q"])
    shards.write_shard(files[1], header(), rows_of(["q", "r"]))
    assert refusal(out) == zeros(out, "has 2 rows, not 1", files[1])


def test_shard_with_other_datasets(tmp_path):
    out = tmp_path / "a.h5"
    files = written(out, ["p"], ["q"])
    name = "regions/boxes"
    expected = "(1, 3, 4) float32"
    for replacement, reason in {
        None: f"has no {name}",
        ((1, 3, 3), "f4"): f"has {name} of (1, 3, 3) float32, not {expected}",
        ((1, 3, 4), "f8"): f"has {name} of (1, 3, 4) float64, not {expected}",
        ((1, 3, 4), ">f4"): f"has {name} of (1, 3, 4) >f4, not {expected}",
        "compressed": f"has {name} that is not contiguous",
    }.items():
        shards.write_shard(files[0], header(), rows_of(["p"]))
        with h5py.File(files[0], "a") as file:
            del file[name]
            if replacement == "compressed":
                file.create_dataset(name, data=np.ones((1, 3, 4), "f4"), compression="gzip")
            elif replacement is not None:
                shape, dtype = replacement
                file.create_dataset(name, data=np.ones(shape, dtype))
        assert refusal(out) == zeros(out, reason, files[0])


def test_names_that_do_not_fit_the_shards(tmp_path):
    out = tmp_path / "a.h5"
    written(out, ["p"], ["q"])
    with h5py.File(out, "a") as file:
        del file["images/path"]
        file["images/path"] = ["p"]
    assert refusal(out) == f"{out} names 1 pictures, its shards hold 2; {mend(out)}"


def test_a_bad_shard_is_not_joined_or_read(tmp_path):
    out = tmp_path / "a.h5"
    files = written(out, ["p"])
    other = dataclasses.replace(header(), set_id="other")
    for action in (
        lambda: feature_file.join(out, other, files),
        lambda: shards.read_shard(files[0], other),
        lambda: shards.shard_contents(files[0], other),
    ):
        with pytest.raises(BadShard, match="belongs to another set"):
            action()
    assert feature_file.open_features(out).paths == ["p"]
