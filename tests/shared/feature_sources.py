"""Small sources of features in the formats of others, for tests; written from scratch."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Picture:
    """What a source says of one picture, in its order."""

    id: str
    width: int
    height: int
    boxes: np.ndarray
    features: np.ndarray
    conf: np.ndarray
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    attributes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    attr_conf: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def order(self) -> list[int]:
        """The most confident first, ties as they come: by a sort of Python's."""
        return sorted(range(len(self.conf)), key=lambda i: (-float(self.conf[i]), i))


def picture(id: str, n: int, dim: int = 3, seed: int = 0) -> Picture:
    random = np.random.default_rng([seed, *id.encode()])
    width, height = (int(v) for v in random.integers(2, 700, 2))
    corners = np.sort(random.random((2, n, 2)).astype("<f4"), axis=0)
    boxes = np.concatenate([corners[0], corners[1]], axis=1) * np.float32([width, height] * 2)
    boxes[:1, 2:] = width, height  # so that not all lie within the first pixel
    return Picture(
        id,
        width,
        height,
        boxes,
        random.normal(size=(n, dim)).astype("<f4") * 9,
        random.integers(0, 5, n).astype("<f4") / 4,  # with ties
        random.integers(0, 1600, n),
        random.integers(0, 400, n),
        random.random(n).astype("<f4"),
    )


def pictures(number: int, n: int = 4, dim: int = 3) -> list[Picture]:
    return [picture(f"p{i:03d}", n, dim) for i in range(number)]


def encoded(array: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def lxmert(one: Picture) -> list[str]:
    """The 10 columns of airsplay/lxmert, src/utils.py."""
    return [
        one.id,
        str(one.height),
        str(one.width),
        encoded(one.classes, "<i8"),
        encoded(one.conf, "<f4"),
        encoded(one.attributes, "<i8"),
        encoded(one.attr_conf, "<f4"),
        str(len(one.boxes)),
        encoded(one.boxes, "<f4"),
        encoded(one.features, "<f4"),
    ]


def bottom_up(one: Picture) -> list[str]:
    """The 6 columns of peteanderson80/bottom-up-attention, tools/generate_tsv.py."""
    return [
        one.id,
        str(one.width),
        str(one.height),
        str(len(one.boxes)),
        encoded(one.boxes, "<f4"),
        encoded(one.features, "<f4"),
    ]


def write_tsv(file: Path, found: list[Picture], columns=lxmert, end: str = "\r\n") -> Path:
    file.write_text("".join("\t".join(columns(one)) + end for one in found), newline="")
    return file


def info(one: Picture) -> dict:
    """As MILVLG/bottom-up-attention.pytorch, utils/extract_utils.py."""
    return {
        "image_id": one.id,
        "image_h": one.height,
        "image_w": one.width,
        "num_boxes": len(one.boxes),
        "objects_id": one.classes,
        "objects_conf": one.conf,
        "attrs_id": one.attributes,
        "attrs_conf": one.attr_conf,
    }


def write_npz(folder: Path, found: list[Picture], **changes) -> Path:
    for one in found:
        file = folder / f"{one.id}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        members = {
            "x": one.features,
            "bbox": one.boxes,
            "num_bbox": len(one.boxes),
            "image_h": one.height,
            "image_w": one.width,
            "info": info(one),
        } | changes
        members = {name: value for name, value in members.items() if value is not None}
        np.savez_compressed(file, **members)
    return folder


def write_arrays(folder: Path, found: list[Picture], leave_out: tuple[str, ...] = ()) -> Path:
    """All pictures have as many regions."""
    arrays = {
        "features": np.stack([one.features for one in found]),
        "boxes": np.stack([one.boxes for one in found]),
        "sizes": np.array([(one.width, one.height) for one in found]),
        "count": np.array([len(one.boxes) for one in found]),
        "scores": np.stack([one.conf for one in found]),
        "classes": np.stack([one.classes for one in found]),
        "attributes": np.stack([one.attributes for one in found]),
        "attribute_scores": np.stack([one.attr_conf for one in found]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        if name not in leave_out:
            np.save(folder / f"{name}.npy", array)
    (folder / "paths.txt").write_text("".join(f"{one.id}\n" for one in found))
    return folder
