"""The torchvision backend against torchvision itself, with a small network of seeded weights."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.ops import box_iou

from cqr.errors import UserError
from cqr.machine import find_device
from cqr.pipeline.detectors import DetectorSpec, download
from cqr.pipeline.detectors import torchvision as backends
from cqr.pipeline.detectors.regional import RegionDetector
from sixteen_bits import assert_16_bits_are_near

torch.set_num_threads(1)

CONFIG = "fasterrcnn_mobilenet_v3_large_320_fpn"
SMALL = {"min_size": 160, "max_size": 320, "rpn_post_nms_top_n_test": 60}
CLASSES = 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def state():
    """Untrained networks see everything alike: normalise each layer, perturb the heads."""
    torch.manual_seed(0)
    network = get_model(CONFIG, weights=None, weights_backbone=None, num_classes=CLASSES)
    for layer in network.backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.inference_mode():
        network.backbone.train()(torch.randn(2, 3, 160, 224))
    heads = network.roi_heads.box_predictor, network.rpn.head
    nn.init.normal_(heads[0].cls_score.weight, std=0.5)
    heads[0].cls_score.bias.data[0] = 5.5  # mostly background
    nn.init.normal_(heads[0].bbox_pred.weight, std=0.05)
    nn.init.normal_(heads[1].cls_logits.weight, std=0.5)
    nn.init.normal_(heads[1].bbox_pred.weight, std=0.1)
    return network.state_dict()


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    safetensors.torch.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def detector(path):
    return RegionDetector(backends.backend(CONFIG, path, CPU, **SMALL))


@pytest.fixture(scope="module")
def library(state):
    """torchvision alone, with the seeded weights."""
    network = get_model(
        CONFIG, weights=None, weights_backbone=None, num_classes=CLASSES, **SMALL
    ).eval()
    network.load_state_dict(state)
    return network


def pictures(*sizes):
    """Noise over stripes, so that no two places look alike."""
    random = np.random.default_rng(1)
    made = []
    for width, height in sizes:
        noise = random.integers(0, 128, (height, width, 3))
        stripes = 64 * (np.arange(width) // 9 % 3)[None, :, None]
        made.append((noise + stripes).astype(np.uint8))
    return made


def as_library(picture):
    return torch.tensor(picture).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("size", [(200, 150), (90, 131)])
def test_the_librarys_boxes_come_first(detector, library, size):
    """Same picture, same thresholds: what torchvision detects is how our rows begin."""
    (picture,) = pictures(size)
    with torch.inference_mode():
        (theirs,) = library([as_library(picture)])
    boxes = theirs["boxes"].unique(dim=0)
    assert 3 < len(boxes) <= 60
    (regions,) = detector([picture], len(boxes))
    assert regions.count == len(boxes)
    ours = torch.tensor(regions.boxes)
    assert box_iou(boxes, ours).max(1).values.min() > 0.999
    for box, score in zip(theirs["boxes"], theirs["scores"], strict=True):
        near = (ours - box).abs().amax(1) < 0.02
        assert near.any()
        assert regions.scores[near].max() >= score - 1e-4
    assert np.abs(np.sort(regions.scores)[::-1] - regions.scores).max() == 0


def test_features_are_the_librarys_for_the_final_boxes(detector, library):
    """torchvision's own forward pass is made to look at our boxes; a hook takes the features."""
    (picture,) = pictures((200, 150))
    (regions,) = detector([picture], 20)
    boxes = np.concatenate((regions.boxes[: regions.count], [[0, 0, 200, 150]]))
    width, height = detector.network_size(200, 150)
    scale = torch.tensor([width / 200, height / 150] * 2)
    taken, replaced = [], library.rpn.forward
    hook = library.roi_heads.box_head.register_forward_hook(lambda *a: taken.append(a[2]))
    library.rpn.forward = lambda *_: ([torch.tensor(boxes, dtype=torch.float32) * scale], {})
    try:
        with torch.inference_mode():
            library([as_library(picture)])
    finally:
        hook.remove()
        library.rpn.forward = replaced
    ours = np.concatenate((regions.features[: regions.count], regions.whole[None]))
    assert ours.std(0).max() > 0.05  # the rows differ
    np.testing.assert_allclose(ours, taken[0].numpy(), atol=1e-4)


def test_a_batch_changes_no_number(detector):
    """Different pictures of one network size, alone and in batches of several lengths."""
    batch = pictures((200, 150), (200, 150), (400, 300), (100, 75), (200, 150))
    assert len({detector.network_size(p.shape[1], p.shape[0]) for p in batch}) == 1
    alone = [detector([p], 12)[0] for p in batch]
    for together in (detector(batch, 12), detector(batch[:2], 12) + detector(batch[2:], 12)):
        for one, other in zip(alone, together, strict=True):
            assert one.count == other.count == 12
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
            np.testing.assert_allclose(one.whole, other.whole, atol=1e-4)
            # Rows whose scores are equal but for rounding may change places.
            match = box_iou(torch.tensor(one.boxes), torch.tensor(other.boxes)).argmax(1).numpy()
            assert sorted(match) == list(range(12))
            np.testing.assert_allclose(one.boxes, other.boxes[match], atol=1e-2)
            np.testing.assert_allclose(one.features, other.features[match], atol=1e-4)


def test_smaller_k_is_a_prefix(detector):
    (picture,) = pictures((200, 150))
    (full,) = detector([picture], 36)
    for k in (1, 18, 35):
        (fewer,) = detector([picture], k)
        np.testing.assert_array_equal(fewer.boxes, full.first(k).boxes)
        np.testing.assert_array_equal(fewer.scores, full.first(k).scores)
        np.testing.assert_allclose(fewer.features, full.first(k).features, atol=1e-5)


def test_k_may_be_all_proposals_but_not_more(detector):
    assert detector.max_k == 60
    (regions,) = detector(pictures((200, 150)), 60)
    assert regions.k == 60
    with pytest.raises(UserError, match="between 1 and 60"):
        detector(pictures((200, 150)), 61)


def test_no_finite_proposal_leaves_the_whole_picture(path):
    backend = backends.backend(CONFIG, path, CPU, **SMALL)
    nn.init.constant_(backend.network.rpn.head.bbox_pred.weight, float("nan"))
    (regions,) = RegionDetector(backend)(pictures((200, 150)), 18)
    assert (regions.count, regions.k) == (1, 18)
    assert regions.boxes[0].tolist() == [0, 0, 200, 150]
    np.testing.assert_array_equal(regions.features[0], regions.whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_tiny_and_thin_pictures(detector, size):
    (regions,) = detector(pictures(size), 5)
    assert regions.k == 5
    assert (regions.width, regions.height) == size


@pytest.mark.parametrize("size", [(500, 375), (640, 427), (333, 1000), (37, 41)])
def test_network_size_is_the_librarys(detector, library, size):
    images, _ = library.transform([torch.zeros(3, size[1], size[0])])
    assert detector.network_size(*size) == images.image_sizes[0][::-1]


def test_identity(detector, path):
    identity = detector.identity
    assert identity["config"] == CONFIG
    assert identity["options"] == SMALL
    assert len(identity["weights"]) == 64
    assert "+" not in identity["version"]  # the build for a GPU gives the same numbers
    assert detector.dim == 1024


def test_a_spec_with_its_defaults(path):
    detector = DetectorSpec("torchvision", CONFIG, path, "cpu").load()
    assert detector.max_k == 150
    (regions,) = detector(pictures((64, 48)), 100)
    assert regions.k == 100


def test_a_grid_over_this_network(path, detector):
    """The grid's features are this network's, for its own boxes."""
    grid = DetectorSpec("grid", f"torchvision/{CONFIG}", path, "cpu").load()
    (picture,) = pictures((200, 150))
    (regions,) = grid([picture], 4)
    assert grid.identity["config"] == f"torchvision/{CONFIG}"
    assert grid.identity["network"]["weights"] == detector.identity["weights"]
    backend = backends.backend(CONFIG, path, CPU)
    width, height = backend.network_size(200, 150)
    with torch.inference_mode():
        maps = backend.encode(backend.resize(picture, (width, height))[None])
        corner = backend.pool(maps, [torch.tensor([[0, 0, width / 2, height / 2]])])
    row = regions.boxes.tolist().index([0, 0, 100, 75])
    np.testing.assert_allclose(regions.features[row], corner[0].numpy(), atol=1e-4)


def test_other_architectures_weights_are_one_sentence(path):
    with pytest.raises(UserError, match="are not those of fasterrcnn_resnet50_fpn_v2"):
        backends.backend(None, path, CPU)


def test_unknown_names_are_one_sentence():
    with pytest.raises(UserError, match=r"named resnet; choose --config from fasterrcnn_resnet50"):
        backends.backend("resnet", None, CPU)
    with pytest.raises(UserError, match="no detector is named yolo; choose --detector from"):
        DetectorSpec("yolo").load()
    with pytest.raises(UserError, match="--device cpu"):
        find_device("abacus")


@pytest.mark.parametrize("config", backends.CONFIGS)
def test_without_a_net_the_url_and_the_flag_are_named(monkeypatch, tmp_path, config):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(download, "reachable", lambda *_, **__: False)
    url = f"https://download.pytorch.org/models/{config.removesuffix('_fpn')}"
    with pytest.raises(UserError, match=rf"{url}.*\.pth by hand .* --weights FILE"):
        backends.backend(config, None, CPU)


def test_published_weights_are_known_by_their_hash():
    assert backends.source("fasterrcnn_resnet50_fpn").sha256 == "258fb6c6"
    assert backends.source(None).path.name == "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"


def test_normalisation_of_the_first_published_network():
    """torchvision drops eps for those weights alone; ours must give the same numbers."""
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.ops import FrozenBatchNorm2d

    ours, theirs = nn.Sequential(nn.BatchNorm2d(2)).eval(), nn.Sequential(FrozenBatchNorm2d(2))
    for layer in (ours[0], theirs[0]):
        layer.running_var.fill_(1e-5)
    backends._forget_eps(ours)
    overwrite_eps(theirs, 0.0)
    pixels = torch.rand(1, 2, 3, 3)
    torch.testing.assert_close(ours(pixels), theirs(pixels))


def test_what_16_bits_make_of_a_box_is_what_32_do(path):
    assert_16_bits_are_near(lambda: backends.backend(CONFIG, path, CPU, **SMALL), 224, 160)
