"""Small feature files and scenes, made afresh for each test; nothing is read from outside."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from cqr.pipeline import feature_file, shards
from cqr.scenes import protocol

torch.set_num_threads(1)

# A background job of a script ignores Ctrl-C, and what it starts would ignore it too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder of its own, so that `artifacts/` is its own."""
    monkeypatch.chdir(tmp_path)


def _write_features(
    path, paths, features, boxes, count=None, sizes=None, root="/pictures", shard_size=1000
):
    path = Path(path)
    n, k, dim = features.shape
    header = shards.Header(
        set_id="a set",
        created="2026-01-01",
        k=k,
        dim=dim,
        detector={"name": "drawn"},
        image_root=str(root),
        command=f"cqr extract --images {root} --k {k}",
        made_by="0",
    )
    files = []
    for first in range(0, n, shard_size):
        part = slice(first, first + shard_size)
        rows = shards.Rows.empty(k, dim, len(paths[part]))
        rows.paths[:] = paths[part]
        rows.arrays["regions/features"][:] = features[part]
        rows.arrays["regions/boxes"][:] = boxes[part]
        rows.arrays["whole/features"][:] = features[part].mean(1)
        rows.arrays["regions/count"][:] = k if count is None else count[part]
        rows.arrays["images/size"][:] = (300, 300) if sizes is None else sizes[part]
        files.append(feature_file.shards_folder(path) / f"{len(files):05d}.h5")
        shards.write_shard(files[-1], header, rows)
    feature_file.join(path, header, files)
    return path


@pytest.fixture
def write_features():
    """A function that writes a feature file: paths, then arrays by row."""
    return _write_features


def _draw_scenes(
    place, references=12, modifications=6, seed=0, noise=0.05, name="css", drawings=False
):
    """A css folder without pictures, and features of its true objects.

    An object's feature is a fixed random map of its attributes, plus noise: what
    a perfect detector would see.  `drawings`: the references are also drawn, as objects
    of half the size whose features are another map of their attributes.
    """
    folder = place / name
    folder.mkdir()
    rng = np.random.default_rng(seed)
    codes = np.random.default_rng(99).normal(size=(2, 13, 24))
    paths, scenes, flat, written = [], [], [], {}
    for split in protocol.SPLITS:
        made = protocol.make_split(split, references, modifications, seed)
        files = [f"images/css_{split}_{i:06d}.png" for i in range(len(made.scenes))]
        images = [
            {"file": file, "caption": protocol.caption(scene), "drawing": None}
            for file, scene in zip(files, made.scenes, strict=True)
        ]
        drawn = references if drawings else 0
        for image in images[:drawn]:
            image["drawing"] = image["file"].replace("images/", "drawings/")
        queries = [vars(query) for query in made.queries]
        written[split] = {"images": images, "queries": queries}
        paths += files + [image["drawing"] for image in images[:drawn]]
        scenes += made.scenes + made.scenes[:drawn]
        flat += [False] * len(files) + [True] * drawn
    (folder / "scenes.json").write_text(json.dumps({"format": "cqr-scenes", "version": 1}))
    k = 9
    features = np.zeros((len(paths), k, 24), np.float32)
    boxes = np.zeros((len(paths), k, 4), np.float32)
    count = np.ones(len(paths), np.int32)
    for i, scene in enumerate(scenes):
        boxes[i, 0] = (0, 0, 300, 300)
        count[i] = max(1, len(scene))
        for j, one in enumerate(scene):
            attributes = np.zeros(13)
            attributes[protocol.COLORS.index(one.color)] = 1
            attributes[8 + protocol.SHAPES.index(one.shape)] = 1
            attributes[11 + protocol.SIZES.index(one.size)] = 1
            features[i, j] = np.tanh(attributes @ codes[int(flat[i])]) + noise * rng.normal(size=24)
            row, column = divmod(one.cell, 3)
            x, y = 100 * column + 50 + rng.normal(), 100 * row + 50 + rng.normal()
            half = (20 if one.size == "small" else 40) / (1 + flat[i])
            boxes[i, j] = (x - half, y - half, x + half, y + half)
    row = {path: i for i, path in enumerate(paths)}
    for split, content in written.items():
        for image in content["images"]:
            at, drawn = row[image["file"]], row.get(image["drawing"])
            image["objects"] = [
                {
                    "shape": one.shape,
                    "color": one.color,
                    "size": one.size,
                    "cell": one.place,
                    "box": boxes[at, j].tolist(),
                    "drawing_box": None if drawn is None else boxes[drawn, j].tolist(),
                }
                for j, one in enumerate(scenes[at])
            ]
        (folder / f"{split}.json").write_text(json.dumps(content))
    file = place / "artifacts" / f"{name}.h5"
    return _write_features(file, paths, features, boxes, count, root=folder)


@pytest.fixture
def drawn_scenes(tmp_path):
    """A function that writes, in the folder of the test, what `_draw_scenes` says."""
    return partial(_draw_scenes, tmp_path)


@pytest.fixture(scope="session")
def scenes_in():
    """The same for a folder that it is given, which tests may share."""
    return _draw_scenes


@pytest.fixture(scope="session")
def drawn_run(tmp_path_factory):
    """A run, trained for an epoch on drawings that are on disk; `drawn_gallery` says what is where.

    It is shared: tests leave it as it is.
    """
    import drawn_gallery

    return drawn_gallery.make(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as play:
        launched = play.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def write_encoder(tmp_path):
    """A function that writes a small language model that was never trained, as transformers does.

    It knows letters and "make", "it" and "red", is 16 wide, and reads up to 40
    tokens.  `marks`: whether its tokenizer puts [CLS] and [SEP] around a text.
    """
    transformers = pytest.importorskip("transformers", reason="pip install 'cqr[text]'")
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    ids = {token: i for i, token in enumerate([*tokens, "make", "it", "red"])}
    size = {
        "vocab_size": len(ids), "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40,
    }  # fmt: skip

    def network(kind):
        if kind == "bert":
            return transformers.BertModel(transformers.BertConfig(**size))
        if kind == "t5":  # an encoder and a decoder
            small = {"vocab_size": len(ids), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}
            return transformers.T5Model(transformers.T5Config(num_layers=1, **small))
        vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        return transformers.CLIPModel(  # images and texts
            transformers.CLIPConfig(
                text_config=size | {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
                vision_config=vision | {"image_size": 16, "patch_size": 8},
            )
        )

    def write(kind="bert", seed=0, marks=True, name="encoder"):
        folder = tmp_path / name
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network(kind).save_pretrained(folder)
        tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if marks:
            tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]",
            cls_token="[CLS]", sep_token="[SEP]", model_max_length=40,
        ).save_pretrained(folder)  # fmt: skip
        return folder

    return write
