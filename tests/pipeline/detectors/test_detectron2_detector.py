"""The detectron2 backend against detectron2 itself; skipped where it is not installed."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec, download
from cqr.pipeline.detectors import detectron2 as backends
from cqr.pipeline.detectors.regional import RegionDetector
from sixteen_bits import assert_16_bits_are_near

pytest.importorskip("detectron2", reason="detectron2 is not installed", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # what it uses of torch ages

torch.set_num_threads(1)

CPU = torch.device("cpu")
FPN = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
C4 = "COCO-Detection/faster_rcnn_R_50_C4_3x"
SMALL = {  # the same code with fewer layers, classes, proposals and pixels
    "INPUT.MIN_SIZE_TEST": 128,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 100,
    "MODEL.ROI_HEADS.NUM_CLASSES": 7,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
}


@pytest.fixture(scope="module", params=[FPN, C4], ids=["FPN", "C4"])
def built(request, tmp_path_factory):
    """A config's name, its settings, and a file of seeded weights as detectron2 saves them."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    settings = backends._settings(request.param, SMALL)
    settings.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    network = build_model(settings).eval()
    for name, layer in network.named_modules():
        # The last norm of each block and the stem's: else the frozen norms explode.
        if name.endswith(("conv2.norm", "conv3.norm")):
            layer.weight.fill_(0.1)
        if name.endswith("stem.conv1.norm"):
            layer.weight.fill_(0.02)
    predictor, rpn = network.roi_heads.box_predictor, network.proposal_generator.rpn_head
    nn.init.normal_(predictor.bbox_pred.weight, std=0.05)
    nn.init.normal_(rpn.objectness_logits.weight, std=0.5)
    nn.init.normal_(rpn.anchor_deltas.weight, std=0.1)
    _tell_boxes_apart(network)
    folder = tmp_path_factory.mktemp("weights")
    DetectionCheckpointer(network, str(folder)).save("model", iteration=3)
    return request.param, settings, folder / "model.pth"


def _tell_boxes_apart(network):
    """Set the classifier so that logits vary by 2 between the boxes of a picture."""
    predictor, taken = network.roi_heads.box_predictor, []
    hook = predictor.register_forward_hook(lambda *a: taken.append(a[1][0]))
    with torch.inference_mode():
        network([{"image": torch.tensor(picture(160, 128)).permute(2, 0, 1).float()}])
    hook.remove()
    features, classifier = taken[0].clone(), predictor.cls_score
    weight = torch.randn_like(classifier.weight)
    weight *= 2 / ((features - features.mean(0)) @ weight.T).std()
    classifier.weight.data = weight
    classifier.bias.data = -(weight @ features.mean(0))
    classifier.bias.data[-1] += 8  # mostly background


@pytest.fixture(scope="module")
def detector(built):
    return RegionDetector(backends.backend(built[0], built[2], CPU, **SMALL))


@pytest.fixture(scope="module")
def library(built):
    """detectron2's own predictor, with its own checkpointer."""
    from detectron2.engine import DefaultPredictor

    settings = built[1].clone()
    settings.MODEL.WEIGHTS = str(built[2])
    settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
    settings.MODEL.ROI_HEADS.NMS_THRESH_TEST = 0.5
    settings.TEST.DETECTIONS_PER_IMAGE = 1000
    return DefaultPredictor(settings)


def picture(width, height):
    random = np.random.default_rng(width)
    noise = random.integers(0, 128, (height, width, 3))
    return (noise + 64 * (np.arange(width) // 9 % 3)[None, :, None]).astype(np.uint8)


@pytest.mark.parametrize("size", [(160, 128), (200, 150)])
def test_the_librarys_boxes_come_first(detector, library, size):
    image = picture(*size)
    theirs = library(image[:, :, ::-1])["instances"]
    boxes = theirs.pred_boxes.tensor.unique(dim=0)
    assert 3 < len(boxes) <= 100
    (regions,) = detector([image], len(boxes))
    assert regions.count == len(boxes)
    ours = torch.tensor(regions.boxes)
    assert box_iou(boxes, ours).max(1).values.min() > 0.999
    for box, score in zip(theirs.pred_boxes.tensor, theirs.scores, strict=True):
        near = (ours - box).abs().amax(1) < 0.02
        assert near.any()
        assert regions.scores[near].max() >= score - 1e-4


def test_features_are_the_librarys_for_the_final_boxes(detector, library):
    """detectron2's own forward pass is made to look at our boxes; a hook takes the features."""
    from detectron2.structures import Boxes, Instances

    image = picture(160, 128)  # its network size: nothing is scaled
    assert detector.network_size(160, 128) == (160, 128)
    (regions,) = detector([image], 20)
    boxes = np.concatenate((regions.boxes[: regions.count], [[0, 0, 160, 128]]))
    given = Instances((128, 160), proposal_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
    taken, network = [], library.model
    hook = network.roi_heads.box_predictor.register_forward_hook(lambda *a: taken.append(a[1][0]))
    replaced = network.proposal_generator.forward
    network.proposal_generator.forward = lambda *_: ([given], {})
    try:
        library(image[:, :, ::-1])
    finally:
        hook.remove()
        network.proposal_generator.forward = replaced
    ours = np.concatenate((regions.features[: regions.count], regions.whole[None]))
    assert ours.std(0).max() > 0.01 * abs(ours).max()  # the rows differ
    np.testing.assert_allclose(ours, taken[0].numpy(), atol=1e-4 * abs(ours).max())


def test_a_batch_changes_no_number(detector):
    batch = [picture(160, 128), picture(320, 256), picture(160, 128)[::-1].copy()]
    for one, together in zip(batch, detector(batch, 8), strict=True):
        (alone,) = detector([one], 8)
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-5)
        np.testing.assert_allclose(alone.whole, together.whole, rtol=1e-3, atol=1e-4)
        match = box_iou(torch.tensor(alone.boxes), torch.tensor(together.boxes)).argmax(1).numpy()
        np.testing.assert_allclose(alone.boxes, together.boxes[match], atol=1e-2)


def test_dimensions_and_tiny_pictures(built, detector):
    assert detector.dim == (64 if built[0] == FPN else 512)
    assert detector.max_k == 100
    for size in ((1, 1), (1, 200), (200, 1)):
        (regions,) = detector([picture(*size)], 18)
        assert regions.k == 18


def test_no_finite_proposal_leaves_the_whole_picture(built):
    backend = backends.backend(built[0], built[2], CPU, **SMALL)
    nn.init.constant_(backend.network.proposal_generator.rpn_head.anchor_deltas.weight, np.nan)
    (regions,) = RegionDetector(backend)([picture(160, 128)], 18)
    assert (regions.count, regions.k) == (1, 18)
    np.testing.assert_array_equal(regions.features[0], regions.whole)


def test_identity(built, detector):
    assert detector.identity["config"] == built[0]
    other = backends._settings(built[0], {})
    assert detector.identity["settings"] != backends._fingerprint(other)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("COCO-Detection/nope", "has no config COCO-Detection/nope; give --config"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x", "is not a Faster R-CNN; choose --config"),
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x", "is not a Faster R-CNN; choose --config"),
        ("COCO-Detection/rpn_R_50_FPN_1x", "is not a Faster R-CNN; choose --config"),
        ("COCO-Detection/retinanet_R_50_FPN_1x", "check --config"),
    ],
)
def test_other_configs_are_one_sentence(config, sentence):
    with pytest.raises(UserError, match=sentence):
        DetectorSpec("detectron2", config, device="cpu").load()


def test_a_yaml_file_of_ones_own(tmp_path, built):
    base = backends._folder() / "configs" / f"{built[0]}.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: {base}\n")
    own = backends.backend(str(path), built[2], CPU, **SMALL)
    assert own.identity["config"] == str(path)
    path.write_text("MODEL: {NO_SUCH_KEY: 1}\n")
    with pytest.raises(UserError, match=r"cannot read the config .*check --config"):
        backends.backend(str(path), built[2], CPU)
    path.write_text("MODEL: !!python/object/apply:os.mkdir ['/tmp/never']\n")
    with pytest.raises(UserError, match="cannot read the config"):
        backends.backend(str(path), built[2], CPU)
    path.write_text(f"_BASE_: {base}\n")
    with pytest.raises(UserError, match=r"no weights for .*mine; .*--weights FILE"):
        backends.backend(str(path), None, CPU)


def test_the_zoos_address_is_the_librarys():
    """Its own table says this; importing that table needs what setuptools no longer has."""
    source = backends.source(None)
    suffix = "COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl"
    assert source.url == f"https://dl.fbaipublicfiles.com/detectron2/{suffix}"
    assert source.path.as_posix().endswith(f"detectron2/{suffix}")


def test_without_a_net_the_url_and_the_flag_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "reachable", lambda *_, **__: False)
    with pytest.raises(UserError, match=r"fbaipublic.*280758\.pkl by hand .* --weights FILE"):
        DetectorSpec("detectron2", device="cpu").load()


def test_other_networks_weights_are_one_sentence(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=f"are not those of {FPN}"):
        DetectorSpec("detectron2", FPN, tmp_path / "w.pth", "cpu").load()


def test_bottom_up_attention_is_a_config(tmp_path, monkeypatch):
    """1,600 classes, 2048-d; its attribute head's tensors are of no use here."""
    import pickle

    from detectron2.modeling import build_model

    from cqr.pipeline.detectors import bottom_up

    few = {"INPUT.MIN_SIZE_TEST": 96, "MODEL.RESNETS.DEPTH": 50}
    few["MODEL.RPN.POST_NMS_TOPK_TEST"] = 4
    settings = backends._settings(bottom_up.CONFIG, few)
    settings.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    state = {n: t.numpy() for n, t in build_model(settings).state_dict().items()}
    state["roi_heads.box_predictor.attr_score.weight"] = np.zeros((401, 512), np.float32)
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "test"}))
    detector = RegionDetector(backends.backend(bottom_up.CONFIG, path, CPU, **few))
    assert (detector.dim, detector.max_k) == (2048, 4)
    (regions,) = detector([picture(96, 96)], 2)
    assert regions.features.shape == (2, 2048)
    assert detector.identity["config"] == bottom_up.CONFIG
    monkeypatch.setattr(download, "reachable", lambda url, seconds: False)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"cannot reach http://nlp\.cs\.unc\.edu/models/faster_rcnn_"
    ):
        backends.backend(bottom_up.CONFIG, None, CPU)


def test_what_16_bits_make_of_a_box_is_what_32_do(built):
    assert_16_bits_are_near(lambda: backends.backend(built[0], built[2], CPU, **SMALL), 160, 128)
