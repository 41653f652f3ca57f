"""CSS, as TIRG released it and as `cqr scenes` generates it.

TIRG's protocol: the gallery is every image of the test split, the reference is
removed, and any image of the same scene as the target is correct.  Generated
pictures are our own; figures on them do not compare with the paper's.

TIRG trains CSS with the soft triplet loss, which is the default on its own files.
On generated scenes the default stays batch classification: on 200 references, 15
epochs, two seeds, all else equal, R@1 was 82.8 with it and 50.3 with the soft triplet
(benchmarks/comparison/ablations.sh).

Where every query is listed, two of a reference meet in a batch, as by TIRG's rule: in
the same setting R@1 is 82.8 with `--together 2` and 75.8 without.

TIRG's 2D-to-3D asks with the flat drawing of the reference's scene, of the same
queries, for the same 3D pictures.  Its scorer (test_retrieval.py) takes the image of
the reference's number out of the gallery, drawn or not; so the reference's own 3D
picture is removed here too.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cqr.errors import UserError, scarcity
from cqr.trainer.datasets.layout import Pictures, first_folder
from cqr.trainer.datasets.pairs import Listed
from cqr.trainer.datasets.queries import MEANT, PHRASE, Dataset, Protocol
from cqr.trainer.datasets.readers import css_original
from cqr.trainer.datasets.recommended import LIGHT
from cqr.typed import parsed

NAME = "css"
LAYOUT = f"scenes.json, made by `cqr scenes`, or TIRG's {css_original.FILE}"
MARKER = "scenes.json"
PUBLISHED = css_original.PUBLISHED

PROTOCOL = Protocol(
    name="css",
    source="CSS protocol of TIRG (Vo et al., CVPR 2019) on generated scenes",
    gallery="all images of the test split",
    remove_reference=True,
    correct="caption",
    recall_at=(1, 5, 10, 50),
)
CROWD = replace(PROTOCOL, source=f"{PROTOCOL.source}, crowded")
DRAWN = replace(
    PROTOCOL,
    source=f"{PROTOCOL.source}, 2D to 3D: a reference is the flat drawing of its scene",
    own="the reference scene's own 3D picture",
)

PAIRS = {
    "listed": PROTOCOL.pairs,
    "tirg": (
        "as many as there are training images, in twos: a random query of a random "
        "modification, and a query of another modification of the same reference"
    ),
}


RECOMMENDED = {**LIGHT, "pool": "max"}
"""The maximum, since a scene is told by which objects are in it: see docs/history.md."""

GENERATED = {
    **RECOMMENDED,
    "lr": 0.002,
    "muon_lr": 0.012,
    "dropout": 0.0,
    "encoder_dropout": 0.0,
    "locate": 1.0,
}
"""Chosen on generated scenes that are for that alone: see docs/choices.md."""

CROWDED = {
    **GENERATED,
    "fusion_depth": 5,
    "locate": 0.2,
    "where": 1.5,
    "where_layers": "all",
    "relations": True,
    "waves": True,
    "word_reach": 4,
    "tep_depth": 2,
    "reorder": 0.5,
    "reference_weight": 0.4,
    "muon_lr": 0.006,
}
"""The same for crowds, where many regions differ a little by what hides what, texts tell by place
and number, and half of the test's are worded as no training text is."""

DRAWINGS = {**GENERATED, "locate": 0.0, "muon_lr": 0.0}
"""A drawing is nowhere like the picture of its scene, so what the text changed cannot be told; Muon
was not tried on them."""

TOGETHER = 4
"""Of a reference in a batch, where its pairs are listed: chosen there too."""

PLACE = r"\b((?:top|middle|bottom)-(?:left|center|right))\b"
"""The cell that a text names, if it does."""


@dataclass(frozen=True)
class Options:
    """How training pairs are drawn, and which picture a query asks with.

    Attributes:
        rules: how pairs are drawn; queries and scores are the same with each.  "tirg" is
            the released code's: every second pair has the reference of the one before and
            another text, so that the two meet in a batch; a query may come several times
            an epoch, or not at all.  "listed" takes every training query once an epoch.
            "auto" is "tirg" on TIRG's own files and "listed" on generated scenes.
        reference: "picture" is the 3D picture of the reference's scene.  "drawing" is the
            flat drawing of it (TIRG's 2D-to-3D), in training as in scoring; gallery,
            targets and what is removed stay the same 3D pictures.  Generated scenes only.
    """

    rules: Literal["auto", "tirg", "listed"] = "auto"
    reference: Literal["picture", "drawing"] = "picture"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    markers = (MARKER, css_original.FILE)
    return first_folder(
        pictures, data, lambda folder: any((folder / name).is_file() for name in markers)
    )


def read(folder: Path, pictures: Pictures, options: Options) -> Dataset:
    """The queries and images of a folder.

    Raises:
        UserError: the folder is of another version, a part of it is missing or broken, or
            drawings are asked for and there are none.
    """
    generated, original = ((folder / name).is_file() for name in (MARKER, css_original.FILE))
    if generated and original:
        raise UserError(
            f"{folder} has {MARKER} and {css_original.FILE}, two data sets: move one of them away"
        )
    rules = options.rules
    if rules == "auto":
        rules = "listed" if generated else "tirg"
    if generated:
        dataset = _generated(folder, options.reference)
    elif options.reference == "drawing":
        raise UserError(
            f"{folder / css_original.FILE} comes without drawings, which TIRG's code makes as it "
            "runs: leave out --protocol reference=drawing, or use scenes made by `cqr scenes`"
        )
    else:
        dataset = _original(folder)
    queries, breakdown = dataset.queries, dataset.breakdown
    if not set(TOLD) <= set(queries):  # of a crowd no text names a cell
        queries = queries.assign(place=queries["text"].str.extract(PLACE)[0])
        breakdown = (*breakdown, "place")
    return replace(
        dataset,
        queries=queries,
        breakdown=breakdown,
        protocol=replace(dataset.protocol, pairs=PAIRS[rules]),
        recommended={**dataset.recommended} | ({"together": TOGETHER} if rules == "listed" else {}),
        pairs=Listed if rules == "listed" else css_original.Modifications,
    )


def counts(dataset: Dataset) -> dict[str, int]:
    """None of generated scenes, which nobody has published."""
    if "mod" not in dataset.queries:
        return {}
    return css_original.counts(dataset.queries, dataset.images)


def _original(folder: Path) -> Dataset:
    queries, images = css_original.read(folder)
    return Dataset(
        name=NAME,
        root=folder,
        queries=queries,
        images=images,
        protocol=replace(PROTOCOL, source="CSS protocol of TIRG (Vo et al., CVPR 2019)"),
        recommended={**RECOMMENDED, "loss": "soft-triplet"},
        breakdown=("kind",),
    )


def _generated(folder: Path, reference: str) -> Dataset:
    manifest = _json(folder / MARKER)
    kind, version = manifest.get("format"), manifest.get("version")
    if (kind, version) != ("cqr-scenes", 1):
        raise UserError(
            f"{folder / MARKER} is {kind!r} version {version!r}, not 'cqr-scenes' version 1: "
            "make the folder again with `cqr scenes --overwrite`"
        )
    crowd = manifest.get("layout") == "crowd"
    if crowd and reference == "drawing":
        raise UserError(
            f"{folder} holds crowded scenes, which are not drawn flat: leave out "
            "--protocol reference=drawing"
        )
    parts = [_split(folder, split, reference, crowd) for split in ("train", "test")]
    protocol, recommended = PROTOCOL, GENERATED
    if crowd:
        protocol, recommended = CROWD, CROWDED
    elif reference == "drawing":
        protocol, recommended = DRAWN, DRAWINGS
    return Dataset(
        name=NAME,
        root=folder,
        queries=pd.concat([queries for queries, _ in parts], ignore_index=True),
        images=pd.concat([images for _, images in parts], ignore_index=True),
        protocol=protocol,
        recommended=recommended,
        breakdown=("kind", "attribute", *(TOLD if crowd else ())),
    )


def _split(
    folder: Path, split: str, reference: str, crowd: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    file = folder / f"{split}.json"
    content = _json(file)
    try:
        _checked(content)
        if crowd:
            _checked_crowd(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(file, error) from error
    images = pd.DataFrame(content["images"], columns=["file", "caption"])
    images = images.rename(columns={"file": "path"}).assign(split=split)
    queries = pd.DataFrame(
        content["queries"], columns=["source", "target", "text", "kind", "attribute"]
    )
    path = images["path"].to_numpy()
    own = path[queries["source"]]
    read = pd.DataFrame(
        {
            "query_id": [f"{split}-{i}" for i in range(len(queries))],
            "reference": own,
            "text": queries["text"],
            "target": path[queries["target"]],
            "split": split,
            "kind": queries["kind"],
            "attribute": queries["attribute"],
        }
    )
    if crowd:
        return read.assign(**_told(content["images"], content["queries"])), images
    read = read.assign(
        **_meant(content["images"], queries, "drawing_box" if reference == "drawing" else "box")
    )
    if reference == "drawing":
        drawings = [image.get("drawing") for image in content["images"]]
        read = read.assign(reference=[drawings[i] for i in queries["source"]], own_image=own)
        if read["reference"].isna().any():
            raise UserError(
                f"{folder} has no drawings: make it again with `cqr scenes --overwrite`, without "
                "--no-drawings, or leave out --protocol reference=drawing"
            )
    return read, images


def _meant(images: list[dict[str, Any]], queries: pd.DataFrame, box: str) -> dict[str, Any]:
    """Columns of each query: the words by which its text refers to an object of the reference,
    and that object's box in pixels.  Missing where the text refers to none, as one that adds.
    """
    phrases: list[str | None] = []
    boxes: list[list[float]] = []
    for row in queries.to_dict("records"):
        source, target = (images[row[end]].get("objects", []) for end in ("source", "target"))
        known = {tuple(one.get(name) for name in NAMED) for one in target}
        gone = [one for one in source if tuple(one.get(name) for name in NAMED) not in known]
        meant = gone[0].get(box) if len(gone) == 1 else None
        words = str(row["text"]).split()
        said = words[1:] if row["kind"] == "remove" else words[1:-1]
        phrases.append(None if meant is None else " ".join(said))
        boxes.append([float("nan")] * 4 if meant is None else meant)
    edges = zip(*boxes, strict=True) if boxes else [[]] * 4
    return {PHRASE: phrases, **dict(zip(MEANT, edges, strict=True))}


NAMED = ("cell", "size", "color", "shape")

TOLD = ("by", "wording")
"""What else is known of a crowd's queries: how a thing is referred to, in words seen or new."""


def _told(images: list[dict[str, Any]], queries: list[dict[str, Any]]) -> dict[str, Any]:
    """Columns of a crowd's queries: TOLD, and as `_meant`, which its file says."""
    missing = [float("nan")] * 4
    boxes = [
        missing if row["meant"] is None else images[row["source"]]["objects"][row["meant"]]["box"]
        for row in queries
    ]
    edges = zip(*boxes, strict=True) if boxes else [[]] * 4
    columns = {name: [row[name] for row in queries] for name in (*TOLD, PHRASE)}
    return {**columns, **dict(zip(MEANT, edges, strict=True))}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parsed(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} where an object should be")
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error
    return content


def _checked(content: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError for what is no split of generated scenes."""
    images, queries = content["images"], content["queries"]
    for image in images:
        if not isinstance(image["file"], str) or not isinstance(image["caption"], str):
            raise ValueError("a picture without file and caption")
        if not isinstance(image.get("drawing"), str | None):
            raise ValueError("a drawing that is no path")
    for query in queries:
        for end in ("source", "target"):
            if type(query[end]) is not int or not 0 <= query[end] < len(images):
                raise ValueError(f"a query whose {end} is {str(query[end])[:50]}")
        if not all(isinstance(query[name], str) for name in ("text", "kind")):
            raise ValueError("a query without text and kind")
        if not isinstance(query.get("attribute"), str | None):
            raise ValueError("a query whose attribute is no text")


def _checked_crowd(content: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError for what is no split of crowded scenes."""
    for query in content["queries"]:
        if not all(isinstance(query[name], str) for name in TOLD):
            raise ValueError("a query that does not say how it is told")
        if not isinstance(query[PHRASE], str | None):
            raise ValueError("a query whose phrase is no text")
        objects, meant = content["images"][query["source"]]["objects"], query["meant"]
        if meant is None:
            continue
        if type(meant) is not int or not 0 <= meant < len(objects):
            raise ValueError(f"a query that means object {str(meant)[:50]}")
        box = objects[meant]["box"]
        if len(box) != 4 or not all(isinstance(edge, int | float) for edge in box):
            raise ValueError(f"an object whose box is {str(box)[:50]}")


def _broken(path: Path, error: Exception) -> UserError:
    why = scarcity(error) or f"({error}): make the folder again with `cqr scenes`"
    return UserError(
        f"cannot read {path}: {why}" if scarcity(error) else f"cannot read {path} {why}"
    )
