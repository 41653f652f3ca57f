import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer import rows
from cqr.trainer.features import RegionReader

anew = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_file(write_features, path, seed, n, k, dim, shard_size):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, k + 1, n).astype(np.int32)
    real = np.arange(k) < count[:, None]
    features = rng.normal(size=(n, k, dim)).astype(np.float32) * real[..., None]
    sizes = rng.integers(20, 500, (n, 2)).astype(np.int32)
    corners = np.sort(rng.random((n, k, 2, 2)), axis=2) * sizes[:, None, None]
    boxes = corners.reshape(n, k, 4).astype(np.float32) * real[..., None]
    paths = [f"folder/{i:04d}.jpg" for i in range(n)]
    write_features(path, paths, features, boxes, count, sizes, shard_size=shard_size)
    return paths, features, boxes, count, sizes


@anew
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 12),
    k=st.integers(1, 6),
    dim=st.integers(1, 9),
    shard_size=st.integers(1, 8),
    data=st.data(),
)
def test_gather_gives_the_rows_that_were_written(
    write_features, tmp_path, seed, n, k, dim, shard_size, data
):
    path = tmp_path / f"{data.draw(st.uuids())}.h5"
    paths, features, boxes, count, sizes = random_file(
        write_features, path, seed, n, k, dim, shard_size
    )
    wanted = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    first = data.draw(st.integers(1, k))
    ways = [RegionReader(path, mapped=way).seen_as("regions", first) for way in (True, False)]
    for reader in (*ways, ways[0].on(torch.device("cpu"))):
        rows = reader.rows([paths[i] for i in wanted])
        batch = reader.gather(rows)
        most = max(min(first, count[i]) for i in wanted)
        assert batch.features.shape == (len(wanted), most, dim)
        for at, i in enumerate(wanted):
            w, h = sizes[i]
            np.testing.assert_array_equal(batch.features[at], features[i, :most].astype("f2"))
            np.testing.assert_allclose(batch.boxes[at], boxes[i, :most] / [w, h, w, h], rtol=1e-6)
            assert batch.mask[at].tolist() == [j < min(first, count[i]) for j in range(most)]
        assert len(batch.once) == len(set(wanted))
        for name in ("features", "boxes", "mask"):
            part = getattr(batch, name)
            np.testing.assert_array_equal(batch.again(getattr(batch.once, name)), part)


def test_an_unknown_path_has_no_row(write_features, tmp_path):
    random_file(write_features, tmp_path / "a.h5", 0, 3, 2, 4, 2)
    assert RegionReader(tmp_path / "a.h5").rows(["folder/0002.jpg", "else"]).tolist() == [2, -1]


@pytest.mark.parametrize("k", [0, 3])
def test_k_beyond_the_file_is_refused(write_features, tmp_path, k):
    random_file(write_features, tmp_path / "a.h5", 0, 3, 2, 4, 2)
    with pytest.raises(UserError, match=rf"--k {k} is not between 1 and the 2 regions"):
        RegionReader(tmp_path / "a.h5").seen_as("regions", k)


@pytest.mark.parametrize("kind", ["regions", "whole"])
def test_all_that_is_gathered_lies_where_the_images_were_put(
    write_features, tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(rows, "CHUNK", 1)  # an image at a time
    random_file(write_features, tmp_path / "a.h5", 0, 5, 3, 4, 2)
    reader = RegionReader(tmp_path / "a.h5").seen_as(kind, whole=True)
    numbers = np.array([4, 1, 4, 0])
    expected, got = (one.gather(numbers) for one in (reader, reader.on(torch.device("cpu"))))
    placed = reader.on(torch.device("meta")).gather(numbers)
    names = ["features", "boxes", "mask"]
    if kind == "regions":
        names += ["whole", "first", "which"]
        assert reader.bytes == 5 * (3 * 4 * 2 + 3 * 4 * 4 + 4 * 2)
    else:
        assert reader.bytes == 5 * 4 * 2
    for name in names:
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=0, atol=0)
        assert getattr(placed, name).device.type == "meta"
    assert len(got.once) == len(expected.once)


@pytest.mark.parametrize("way", ["mapped", "hdf5", "resident"])
def test_the_whole_image_is_one_region(write_features, tmp_path, way):
    paths, features, *_ = random_file(write_features, tmp_path / "a.h5", 0, 5, 3, 4, 2)
    reader = RegionReader(tmp_path / "a.h5", mapped=way != "hdf5")
    whole = reader.seen_as("whole")
    whole = whole.on(torch.device("cpu")) if way == "resident" else whole
    batch = whole.gather(reader.rows([paths[4], paths[1]]))
    np.testing.assert_array_equal(
        batch.features, features[[4, 1]].mean(1, keepdims=True).astype("f2")
    )
    assert batch.boxes.tolist() == [[[0, 0, 1, 1]]] * 2
    assert batch.mask.tolist() == [[True]] * 2
    assert reader.gather(reader.rows(paths[:1])).features.shape[1] <= 3  # the first is as it was
    with pytest.raises(UserError, match=r"--input grid is not one of regions, whole"):
        reader.seen_as("grid")
