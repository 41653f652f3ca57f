"""A small gallery in a joint space of texts and pictures, whose model is tiny and random."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

import tiny_backbones
from cqr.pipeline import feature_file, shards

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
E = tiny_backbones.JOINT


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def described(folder: Path, library: str = "transformers", **changes) -> dict:
    """What a feature file says of the space of a model in a folder; see docs/files.md."""
    weights = "model.safetensors" if library == "transformers" else "open_clip_model.safetensors"
    there = [name for name in TOKENIZER if (folder / name).is_file()]
    joint = {
        "dim": E,
        "library": library,
        "model": str(folder),
        "file": None,
        "family": "clip",
        "context": 77,
        "weights": {weights: sha256(folder / weights)},
        "tokenizer": {name: sha256(folder / name) for name in there},
    } | changes
    named = json.dumps({k: v for k, v in joint.items() if k not in ("library", "model", "file")})
    return {"id": hashlib.sha256(named.encode()).hexdigest(), **joint}


def write(
    path: Path,
    joint: dict | None,
    number: int = 40,
    k: int = 3,
    dim: int = E,
    seed: int = 0,
    root: str | Path = "/pictures",
    paths: list[str] | None = None,
    whole: np.ndarray | None = None,
) -> Path:
    """A feature file of `number` random pictures, p00.png, p01.png, ... or of those paths."""
    paths = paths or [f"p{i:02d}.png" for i in range(number)]
    number = len(paths)
    rng = np.random.default_rng(seed)
    header = shards.Header(
        set_id=f"a set {seed}",
        created="2026-01-01",
        k=k,
        dim=dim,
        detector={"name": "transformers", "config": "tiny", "joint": joint},
        image_root=str(root),
        command=f"cqr extract --images {root} --k {k}",
        made_by="0",
    )
    rows = shards.Rows.empty(k, dim, number)
    rows.paths[:] = paths
    shift = 3 * rng.normal(size=dim)  # all pictures lie in one direction
    rows.arrays["whole/features"][:] = shift + rng.normal(size=(number, dim))
    rows.arrays["regions/features"][:] = shift + rng.normal(size=(number, k, dim))
    if whole is not None:
        rows.arrays["whole/features"][:] = whole
        rows.arrays["regions/features"][:] = whole[:, None]
    rows.arrays["regions/boxes"][:] = (0, 0, 30, 30)
    rows.arrays["regions/count"][:] = k
    rows.arrays["images/size"][:] = (30, 30)
    shard = feature_file.shards_folder(path) / "00000.h5"
    shards.write_shard(shard, header, rows)
    feature_file.join(path, header, [shard])
    return path


def tiny_open_clip(folder: Path, seed: int = 0) -> Path:
    """An open_clip model with its configuration, as `local-dir:` reads it."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": E,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2
        },
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    )
    torch.manual_seed(seed)
    state = open_clip.CLIP(**config).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    return folder
