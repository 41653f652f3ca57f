"""Bottom-up attention as a config of detectron2, beside its public reference implementation.

    git clone https://github.com/airsplay/py-bottom-up-attention
    python benchmarks/quality/bottom_up.py --reference py-bottom-up-attention

Both get the same file of random weights and the same picture, 224 x 160, and 60 proposals; printed
are the largest differences between proposals' boxes, class probabilities and 2048-d features, and
between the 2048-d features of 20 of the boxes that the regression makes of them.  The reference is
run as it stands, in a process of its own; what it imports but does not call here (OpenCV, its
compiled operators, which a torch of today cannot build) is stubbed.  Needs detectron2.
"""

import argparse
import importlib.machinery
import pickle
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

SIZE = (224, 160)
PROPOSALS, AGAIN = 60, 20
OPTIONS = {"INPUT.MIN_SIZE_TEST": SIZE[1], "MODEL.RPN.POST_NMS_TOPK_TEST": PROPOSALS}


def picture() -> np.ndarray:
    random = np.random.default_rng(0)
    noise = random.integers(0, 128, (SIZE[1], SIZE[0], 3))
    return (noise + 64 * (np.arange(SIZE[0]) // 9 % 3)[None, :, None]).astype(np.uint8)


@torch.inference_mode()
def ours(folder: Path) -> None:
    """Make random weights, run them here, and keep weights and results in the folder."""
    from detectron2.modeling import build_model

    from cqr.pipeline.detectors import bottom_up, detectron2

    torch.manual_seed(0)
    settings = detectron2._settings(bottom_up.CONFIG, OPTIONS)
    settings.MODEL.DEVICE = "cpu"
    network = build_model(settings)
    for name, layer in network.named_modules():
        # The last norm of each block and the stem's: else the frozen norms explode.
        if name.endswith(("conv2.norm", "conv3.norm")):
            layer.weight.fill_(0.1)
        if name.endswith("stem.conv1.norm"):
            layer.weight.fill_(0.02)
    heads, rpn = network.roi_heads.box_predictor, network.proposal_generator.rpn_head
    for layer, deviation in ((rpn.objectness_logits, 0.5), (rpn.anchor_deltas, 0.1)):
        torch.nn.init.normal_(layer.weight, std=deviation)
    torch.nn.init.normal_(heads.cls_score.weight, std=0.5)
    torch.nn.init.normal_(heads.bbox_pred.weight, std=0.05)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    path = folder / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "cqr"}))

    backend = detectron2.backend(bottom_up.CONFIG, path, torch.device("cpu"), **OPTIONS)
    assert backend.network_size(*SIZE) == SIZE
    maps = backend.encode(backend.resize(picture(), SIZE)[None].float())
    proposals, _ = backend.network.proposal_generator(maps.images, maps.features, None)
    boxes = proposals[0].proposal_boxes.tensor
    (found,) = backend.find(maps, 36)
    classes = settings.MODEL.ROI_HEADS.NUM_CLASSES
    regressed = found.boxes.reshape(len(boxes), classes, 4)
    again = regressed[:AGAIN, 0].clamp(min=0, max=SIZE[1])
    np.savez(
        folder / "ours.npz",
        boxes=boxes,
        features=backend.pool(maps, [boxes]),
        regressed=regressed[:, ::40],
        scores=found.scores.reshape(len(boxes), classes),
        again=again,
        pooled=backend.pool(maps, [again]),
    )


@torch.no_grad()
def theirs(folder: Path, reference: Path) -> None:
    """Run the reference on the same weights and picture."""
    for name in ("detectron2._C", "cv2", "imagesize"):
        module: Any = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__version__ = "4.0"
        module.__getattr__ = lambda attribute: MagicMock()
        sys.modules[name] = module
    from PIL import Image

    Image.LINEAR = Image.BILINEAR  # type: ignore[attr-defined]  # Pillow no longer has it
    sys.path.insert(0, str(reference))
    import detectron2
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputs
    from detectron2.structures import Boxes

    assert Path(detectron2.__file__).is_relative_to(reference.resolve())
    settings = get_cfg()
    settings.merge_from_file(
        str(reference / "configs/VG-Detection/faster_rcnn_R_101_C4_caffemaxpool.yaml")
    )
    settings.merge_from_list([part for pair in OPTIONS.items() for part in pair])
    settings.MODEL.DEVICE = "cpu"
    network = build_model(settings).eval()
    state = pickle.loads((folder / "weights.pkl").read_bytes())["model"]
    loaded = network.load_state_dict(
        {name: torch.tensor(array) for name, array in state.items()}, strict=False
    )
    # Its anchors are among its tensors, but made by itself.
    assert loaded.missing_keys == ["proposal_generator.anchor_generator.cell_anchors.0"]
    assert not loaded.unexpected_keys
    pixels = torch.tensor(picture()[:, :, ::-1].copy()).permute(2, 0, 1).float()  # BGR
    images = network.preprocess_image([{"image": pixels}])
    features = network.backbone(images.tensor)
    proposals, _ = network.proposal_generator(images, features, None)
    heads = network.roi_heads
    maps = [features[name] for name in heads.in_features]

    def pooled(boxes: Any) -> Any:
        return heads._shared_roi_transform(maps, [boxes]).mean(dim=[2, 3])

    boxes = proposals[0].proposal_boxes
    described = pooled(boxes)
    logits, deltas = heads.box_predictor(described)
    outputs = FastRCNNOutputs(
        heads.box2box_transform, logits, deltas, proposals, heads.smooth_l1_beta
    )
    again = np.load(folder / "ours.npz")["again"]
    np.savez(
        folder / "theirs.npz",
        boxes=boxes.tensor,
        features=described,
        regressed=outputs.predict_boxes()[0].view(len(boxes), -1, 4)[:, ::40],
        scores=outputs.predict_probs()[0][:, :-1],
        again=again,
        pooled=pooled(Boxes(torch.tensor(again))),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--part", choices=("ours", "theirs"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.part == "ours":
        ours(options.folder)
        return
    if options.part == "theirs":
        theirs(options.folder, options.reference.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in ("ours", "theirs"):
            command = [sys.executable, "-W", "ignore", __file__, "--reference"]
            command += [str(options.reference), "--part", part, "--folder", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        here, there = (np.load(Path(folder, f"{name}.npz")) for name in ("ours", "theirs"))
        for name in ("boxes", "features", "regressed", "scores", "pooled"):
            apart = np.abs(here[name] - there[name]).max()
            print(
                f"{name}, {' x '.join(map(str, here[name].shape))}: differ by {apart:.2g} at most, "
                f"values from {there[name].min():.3g} to {there[name].max():.3g}"
            )


if __name__ == "__main__":
    main()
