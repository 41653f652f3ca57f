"""Pretrained networks as encoders, against their own libraries, with tiny seeded models."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

import tiny_backbones as tiny
from cqr.pipeline.detectors import DetectorSpec

torch.set_num_threads(1)

SIDE = tiny.SIDE
MODELS = {
    "clip": ("transformers", tiny.tiny_clip, {}),
    "siglip": ("transformers", tiny.tiny_siglip, {}),
    "dinov2": ("transformers", tiny.tiny_dinov2, {}),
    "registers": ("transformers", tiny.tiny_dinov2, {"registers": 3}),
    "open-vit": ("open_clip", tiny.tiny_open_clip, {"kind": "vit"}),
    "open-resnet": ("open_clip", tiny.tiny_open_clip, {"kind": "resnet"}),
    "open-siglip": ("open_clip", tiny.tiny_open_clip, {"kind": "siglip"}),
    "open-pe": ("open_clip", tiny.tiny_open_clip, {"kind": "pe"}),
    "open-fastvit": ("open_clip", tiny.tiny_open_clip, {"kind": "fastvit"}),
    "timm-vit": ("timm", tiny.tiny_timm, {}),
    "timm-naflex": ("timm", tiny.tiny_timm, {"architecture": "naflexvit_base_patch16_siglip"}),
    "timm-resnet": ("timm", tiny.tiny_timm, {"architecture": "test_resnet"}),
    "timm-mobilenet": ("timm", tiny.tiny_timm, {"architecture": "mobilenetv3_small_050"}),
}
JOINT = {"clip", "siglip", "open-vit", "open-resnet", "open-siglip", "open-pe", "open-fastvit"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function that makes a model once, and returns its folder."""
    made = {}

    def make(name):
        if name not in made:
            _, build, options = MODELS[name]
            made[name] = build(tmp_path_factory.mktemp(name) / "model", **options)
        return made[name]

    return make


@pytest.fixture(scope="module")
def load(folder):
    """A function that loads a detector over a model once."""
    loaded = {}

    def load(name, options=""):
        if (name, options) not in loaded:
            spec = DetectorSpec(MODELS[name][0], f"{folder(name)}{options}", device="cpu")
            loaded[name, options] = spec.load()
        return loaded[name, options]

    return load


def picture(width, height, seed=0):
    random = np.random.default_rng((width, height, seed))
    stripes = 90 * (np.arange(width) // 5 % 2)[None, :, None]
    return (random.integers(0, 160, (height, width, 3)) + stripes).astype(np.uint8)


def as_input(image):
    """1 x 3 x H x W as the tiny models want it, by the statistics in tiny_backbones."""
    mean, std = np.array([0.48, 0.46, 0.41]), np.array([0.27, 0.26, 0.28])
    values = (image / 255 - mean) / std
    return torch.tensor(values.transpose(2, 0, 1)[None], dtype=torch.float32)


def side_of(detector):
    return detector.identity["input"]["width"]


def library(name, folder):
    """The model as its library loads it, knowing nothing of this package."""
    kind = MODELS[name][0]
    if kind == "transformers":
        import transformers

        return transformers.AutoModel.from_pretrained(folder).eval()
    if kind == "open_clip":
        import open_clip

        return open_clip.create_model(f"local-dir:{folder}").eval()
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@torch.inference_mode()
def embedding(name, model, pixels):
    """What the library itself calls the embedding of a picture."""
    if name in ("clip", "siglip"):
        return model.get_image_features(pixels).pooler_output[0].numpy()
    if name in ("dinov2", "registers"):
        return model(pixels).pooler_output[0].numpy()
    if name.startswith("open"):
        return model.encode_image(pixels)[0].numpy()
    return model.forward_head(model.forward_features(pixels), pre_logits=True)[0].numpy()


@pytest.mark.parametrize("name", MODELS)
def test_the_whole_is_the_models_own_embedding(name, load, folder):
    detector = load(name)
    image = picture(side_of(detector), side_of(detector))
    (regions,) = detector([image], 4)
    expected = embedding(name, library(name, folder(name)), as_input(image))
    assert regions.whole.shape == (detector.dim,)
    np.testing.assert_allclose(regions.whole, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 0.1
    assert regions.features.std(0).max() > 0.01  # cells differ


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_four_is_four_of_one(name, load):
    detector = load(name)
    batch = [picture(60, 40), picture(30, 90), picture(60, 40, seed=1), picture(25, 25)]
    assert len({detector.network_size(p.shape[1], p.shape[0]) for p in batch}) == 1
    for one, together in zip(batch, detector(batch, 9), strict=True):
        (alone,) = detector([one], 9)
        np.testing.assert_allclose(alone.features, together.features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(alone.whole, together.whole, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(alone.boxes, together.boxes)


@pytest.mark.parametrize("name", ["siglip", "open-siglip", "open-fastvit", "timm-naflex"])
def test_a_box_around_everything_is_the_whole(name, load):
    """Where the embedding is pooled from the places alone, a cell of all of them is that."""
    (regions,) = load(name)([picture(90, 50)], 1)
    np.testing.assert_allclose(regions.features[0], regions.whole, rtol=1e-4, atol=1e-4)


def places(cell, columns, rows, number):
    """The tokens, row by row, of a cell whose edges lie between tokens."""
    x1, y1, x2, y2 = (cell.reshape(2, 2) * [columns, rows] / number).round().astype(int).ravel()
    return [y * columns + x for y in range(y1, y2) for x in range(x1, x2)]


def quarters(regions, side):
    """The cells of K = 4 in fractions of the picture's sides, times 2."""
    return [(box / side * 2).round() for box in regions.boxes]


@torch.inference_mode()
def test_a_cell_of_clip_in_numpy(load, folder):
    """Normalised, averaged over its 2 x 2 tokens, projected; the class token left out."""
    image = picture(SIDE, SIDE)
    (regions,) = load("clip")([image], 4)
    model = library("clip", folder("clip"))
    tokens = model.get_image_features(as_input(image)).last_hidden_state[0, 1:].double().numpy()
    state = {n: t.double().numpy() for n, t in model.state_dict().items()}
    centred = tokens - tokens.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    normal = normal * state["vision_model.post_layernorm.weight"]
    normal += state["vision_model.post_layernorm.bias"]
    for cell, feature in zip(quarters(regions, SIDE), regions.features, strict=True):
        mean = normal[places(cell, 4, 4, 2)].mean(0)
        expected = state["visual_projection.weight"] @ mean
        np.testing.assert_allclose(feature, expected, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_a_cell_of_siglip_is_its_head_over_the_tokens_of_the_cell(load, folder):
    image = picture(SIDE, SIDE)
    (regions,) = load("siglip")([image], 4)
    model = library("siglip", folder("siglip"))
    tokens = model.get_image_features(as_input(image)).last_hidden_state
    for cell, feature in zip(quarters(regions, SIDE), regions.features, strict=True):
        expected = model.vision_model.head(tokens[:, places(cell, 4, 4, 2)])[0]
        np.testing.assert_allclose(feature, expected.numpy(), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(("name", "grid", "prefix"), [("open-siglip", 4, 0), ("open-pe", 10, 1)])
def test_a_cell_of_timms_siglip_is_its_pool_over_the_tokens_of_the_cell(
    name, grid, prefix, load, folder
):
    """Registers have no part in a cell, even where the model's embedding attends to them."""
    image = picture(side_of(load(name)), side_of(load(name)))
    (regions,) = load(name)([image], 4)
    visual = library(name, folder(name)).visual
    trunk = visual.trunk
    tokens = trunk.forward_features(as_input(image))
    assert trunk.num_prefix_tokens == prefix
    assert tokens.shape[1] == prefix + grid**2
    for cell, feature in zip(quarters(regions, len(image)), regions.features, strict=True):
        chosen = tokens[:, prefix:][:, places(cell, grid, grid, 2)]
        expected = visual.head(trunk.head(trunk.fc_norm(trunk.attn_pool(chosen))))[0]
        np.testing.assert_allclose(feature, expected.numpy(), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_cell_of_open_clips_vit(load, folder):
    image = picture(SIDE, SIDE)
    (regions,) = load("open-vit")([image], 4)
    model = library("open-vit", folder("open-vit"))
    out = model.visual.forward_intermediates(
        as_input(image), indices=1, normalize_intermediates=True
    )
    (mapped,) = out["image_intermediates"][0]
    for cell, feature in zip(quarters(regions, SIDE), regions.features, strict=True):
        mean = mapped.flatten(1)[:, places(cell, 4, 4, 2)].mean(1)
        np.testing.assert_allclose(feature, mean @ model.visual.proj, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_cell_of_clips_resnet_is_its_values_projected(load, folder):
    image = picture(64, 64)
    (regions,) = load("open-resnet")([image], 4)
    visual = library("open-resnet", folder("open-resnet")).visual
    x = as_input(image)
    for stage in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    for cell, feature in zip(quarters(regions, 64), regions.features, strict=True):
        column, row = int(cell[0]), int(cell[1])
        value = visual.attnpool.v_proj(x[0, :, row, column])
        expected = visual.attnpool.c_proj(value)
        np.testing.assert_allclose(feature, expected.numpy(), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize(("name", "registers"), [("dinov2", 0), ("registers", 3)])
def test_class_token_and_registers_are_no_regions(name, registers, load, folder):
    """K = 16 is a cell a token."""
    image = picture(SIDE, SIDE)
    (regions,) = load(name)([image], 16)
    out = library(name, folder(name))(as_input(image)).last_hidden_state[0]
    assert len(out) == 1 + registers + 16
    for box, feature in zip(regions.boxes, regions.features, strict=True):
        x, y = (box[:2] / 8).round().astype(int)
        expected = out[1 + registers + 4 * y + x].numpy()
        np.testing.assert_allclose(feature, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_cell_of_a_classifier_passes_through_the_head(load, folder):
    """timm's MobileNetV3 has a layer behind its pooling: 2 x 2 places, K = 4 a cell each."""
    image = picture(64, 64)
    (regions,) = load("timm-mobilenet")([image], 4)
    model = library("timm-mobilenet", folder("timm-mobilenet"))
    mapped = model.forward_features(as_input(image))[0]
    for cell, feature in zip(quarters(regions, 64), regions.features, strict=True):
        column, row = int(cell[0]), int(cell[1])
        hidden = model.act2(
            model.norm_head(model.conv_head(mapped[None, :, row, column, None, None]))
        )
        np.testing.assert_allclose(feature, hidden[0, :, 0, 0].numpy(), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["clip", "open-vit"])
def test_values_are_a_last_layer_in_which_a_token_attends_to_itself(name, load, folder):
    """The library's own layer, with a mask that leaves each token only itself."""
    image = picture(SIDE, SIDE)
    (regions,) = load(name, "#values")([image], 16)
    (plain,) = load(name)([image], 16)
    np.testing.assert_allclose(regions.whole, plain.whole, rtol=1e-5, atol=1e-5)
    assert np.abs(regions.features - plain.features).max() > 0.01
    model = library(name, folder(name))
    itself = torch.full((17, 17), float("-inf")).fill_diagonal_(0)
    if name == "clip":
        vision = model.vision_model
        before = vision(as_input(image), output_hidden_states=True).hidden_states[-2]
        after = vision.encoder.layers[-1](before, attention_mask=itself[None, None])
        after = after[0] if isinstance(after, tuple) else after
        expected = model.visual_projection(vision.post_layernorm(after))[0, 1:]
    else:
        visual = model.visual
        x = visual._embeds(as_input(image))
        x = visual.transformer.resblocks[0](x)
        x = visual.transformer.resblocks[1](x, attn_mask=itself)
        expected = (visual.ln_post(x) @ visual.proj)[0, 1:]
    for box, feature in zip(regions.boxes, regions.features, strict=True):
        x, y = (box[:2] / 8).round().astype(int)
        np.testing.assert_allclose(feature, expected[4 * y + x].numpy(), rtol=1e-3, atol=1e-3)


# --- sizes and shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "open-vit", "timm-vit"])
def test_a_rectangle_is_squashed_so_that_boxes_and_pixels_match(name, load):
    """Its cells are those of its squashed self, in its own pixels."""
    from PIL import Image

    image = picture(64, 16)
    detector = load(name)
    squashed = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    (regions,), (square,) = detector([image], 9), detector([squashed], 9)
    np.testing.assert_allclose(regions.features, square.features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(regions.boxes * [0.5, 2, 0.5, 2], square.boxes, atol=1e-4)
    assert (regions.width, regions.height) == (64, 16)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 1)])
@pytest.mark.parametrize("options", ["", "#own"])
def test_tiny_and_thin_pictures(size, options, load):
    (regions,) = load("clip", options)([picture(*size)], 36)
    assert regions.count == 36
    assert np.isfinite(regions.features).all()


@torch.inference_mode()
def test_another_size_interpolates_the_positions_as_the_library_does(load, folder):
    image = picture(64, 64)
    for name in ("clip", "siglip"):
        detector = load(name, "#64")
        assert detector.identity["tokens"] == [8, 8]
        (regions,) = detector([image], 4)
        model = library(name, folder(name))
        out = model.get_image_features(as_input(image), interpolate_pos_encoding=True)
        np.testing.assert_allclose(
            regions.whole, out.pooler_output[0].numpy(), rtol=1e-3, atol=1e-3
        )
    import timm

    (regions,) = load("timm-vit", "#64")([image], 4)
    model = timm.create_model(
        f"local-dir:{folder('timm-vit')}", pretrained=True, dynamic_img_size=True
    ).eval()
    expected = model.forward_head(model.forward_features(as_input(image)), pre_logits=True)
    np.testing.assert_allclose(regions.whole, expected[0].numpy(), rtol=1e-3, atol=1e-3)
    assert load("open-vit", "#64").identity["tokens"] == [8, 8]


@torch.inference_mode()
def test_own_preprocessing_is_the_librarys(load, folder):
    """A picture with wide borders of noise, which the crop leaves out."""
    import open_clip
    from PIL import Image
    from transformers import AutoImageProcessor

    image = picture(100, 64)
    processor = AutoImageProcessor.from_pretrained(folder("clip"))
    pixels = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
    (regions,) = load("clip", "#own")([image], 4)
    expected = embedding("clip", library("clip", folder("clip")), pixels)
    np.testing.assert_allclose(regions.whole, expected, rtol=0.02, atol=0.05)
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder('open-vit')}")
    (regions,) = load("open-vit", "#own")([image], 4)
    pixels = transform(Image.fromarray(image))[None]
    expected = embedding("open-vit", library("open-vit", folder("open-vit")), pixels)
    np.testing.assert_allclose(regions.whole, expected, rtol=1e-3, atol=1e-3)


def test_with_own_preprocessing_cells_are_still_where_they_say(load):
    """A picture of which all but the middle third is cropped away: K = 9 is three columns."""
    image = picture(96, 32)
    (regions,) = load("dinov2", "#own")([image], 9)
    (middle,) = load("dinov2")([image[:, 32:64]], 3 * 3)
    rows = {tuple(b): f for b, f in zip(regions.boxes.round(), regions.features, strict=True)}
    thirds = np.linspace(0, 32, 4).round()
    # The whole middle column of cells lies in what is seen: 32 pixels wide, a third high.
    seen = middle.features  # 3 x 3 cells of the middle; averaged a row they are those columns
    for i in range(3):
        box = (32, thirds[i], 64, thirds[i + 1])
        same_row = [f for b, f in zip(middle.boxes, seen, strict=True) if abs(b[1] - thirds[i]) < 1]
        np.testing.assert_allclose(rows[box], np.mean(same_row, 0), rtol=1e-3, atol=1e-3)
    # Cells that were cropped away have the tokens nearest to them.
    left = rows[(0, thirds[1], 32, thirds[2])]
    assert np.isfinite(left).all()


def test_naflex_keeps_the_shape(load):
    """Own: as many patches as the square has, in the picture's shape; 4 x 4 of 8 pixels."""
    detector = load("timm-naflex", "#own")
    assert detector.network_size(300, 300) == (32, 32)
    width, height = detector.network_size(400, 100)
    assert width % 8 == height % 8 == 0
    assert width * height <= 32 * 32
    assert width > 2 * height
    assert detector.identity["input"]["fit"] == "natural"
    (regions,) = detector([picture(400, 100)], 4)
    assert regions.boxes.max() == 400


# --- what the file says --------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_identity(name, load, folder):
    import hashlib

    identity = load(name).identity
    assert identity["name"] == MODELS[name][0]
    assert identity["config"] == str(folder(name))
    assert json.loads(json.dumps(identity)) == identity
    for file, sha256 in identity["files"].items():
        assert hashlib.sha256((folder(name) / file).read_bytes()).hexdigest() == sha256
    assert any(file.endswith(".safetensors") for file in identity["files"])
    assert identity["input"]["mean"] == [0.48, 0.46, 0.41]
    assert (identity["regions"], identity["finder"]) == ("cells", None)
    if name not in JOINT:
        assert identity["joint"] is None
        return
    joint = identity["joint"]
    assert joint["dim"] == load(name).dim
    assert joint["library"] == MODELS[name][0]
    assert joint["model"] == str(folder(name))
    assert joint["context"] == (64 if name == "siglip" else 77)
    assert set(joint["weights"]) <= set(identity["files"])
    assert bool(joint["tokenizer"]) == (joint["library"] == "transformers")


def test_a_space_is_its_weights_and_tokenizer_wherever_they_lie(load, tmp_path):
    copy = tiny.tiny_clip(tmp_path / "copy")
    other = tiny.tiny_clip(tmp_path / "other", seed=1)
    spaces = [
        DetectorSpec("transformers", str(path), device="cpu").load().identity["joint"]
        for path in (copy, other)
    ]
    assert spaces[0]["id"] == load("clip").identity["joint"]["id"]
    assert spaces[0]["model"] != load("clip").identity["joint"]["model"]
    assert spaces[1]["id"] != spaces[0]["id"]
    assert load("clip", "#values").identity["joint"]["id"] == spaces[0]["id"]


def test_a_detector_comes_back_from_its_identity(load, tmp_path, folder):
    was = load("clip", "#values").identity
    assert DetectorSpec.of(was, device="cpu").load().identity == was
    moved = tmp_path / "moved"
    moved.symlink_to(folder("clip"))
    elsewhere = {**was, "config": "/nowhere/model#values"}
    again = DetectorSpec.of(elsewhere, moved, "cpu").load().identity
    assert again["files"] == was["files"]
    assert again["config"] == "/nowhere/model#values"
    assert again["joint"]["id"] == was["joint"]["id"]


def test_a_file_of_weights_for_an_architecture(tmp_path):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_vit")
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    detector = DetectorSpec("timm", "test_vit", path, device="cpu").load()
    image = picture(160, 160)
    (regions,) = detector([image], 4)
    mean, std = (np.array(detector.identity["input"][key]) for key in ("mean", "std"))
    pixels = torch.tensor(((image / 255 - mean) / std).transpose(2, 0, 1)[None]).float()
    with torch.inference_mode():
        expected = model.eval().forward_head(model.forward_features(pixels), pre_logits=True)
    np.testing.assert_allclose(regions.whole, expected[0].numpy(), rtol=1e-3, atol=1e-3)
