"""FashionIQ (Wu et al., CVPR 2021): three categories, two captions a pair.

The val split is scored, category by category; the truth of the test split was
never published.  Published figures are of two galleries, three ways with the
reference and several forms of the text, and do not compare: see `Options`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets.forms import Entries, Form
from cqr.trainer.datasets.layout import Pictures, first_folder
from cqr.trainer.datasets.pairs import Listed
from cqr.trainer.datasets.queries import Dataset, Protocol
from cqr.trainer.datasets.readers.two_captions import FORMS, RandomForm, stripped
from cqr.trainer.datasets.recommended import LIGHT
from cqr.trainer.datasets.records import name_in, names_of, records_of, texts_in

NAME = "fashion-iq"
LAYOUT = "captions/cap.CATEGORY.SPLIT.json and image_splits/split.CATEGORY.SPLIT.json"
CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("train", "val", "test")

_SIZES = {
    # pairs and images of train, val, test; images of val pairs
    "dress": (5_985, 2_017, 2_024, 11_452, 3_817, 3_818, 2_628),
    "shirt": (5_988, 2_038, 2_038, 19_036, 6_346, 6_346, 3_089),
    "toptee": (6_027, 1_961, 2_056, 16_121, 5_373, 5_374, 2_902),
}
_COUNTED = [f"{split} {what}" for what in ("pairs", "images") for split in SPLITS]
PUBLISHED = {
    f"{category} {what}": size
    for category, sizes in _SIZES.items()
    for what, size in zip([*_COUNTED, "images of val pairs"], sizes, strict=True)
} | {"names": 77_683, "distinct names": 74_381}

SUBMISSION = tuple(
    Form(f"{category}.test.pred.json", 50, Entries(("candidate", "captions")), part=category)
    for category in CATEGORIES
)
"""The challenge's files (XiaoxiaoGuo/fashion-iq, start_kit/eval.py, which looks at 50)."""


@dataclass(frozen=True)
class Options:
    """What published codes do differently.  The defaults are CLIP4Cir's.

    Attributes:
        gallery: "original", every image of the category's val list (CLIP4Cir,
            SEARLE, ComposeAE, ARTEMIS, DQU-CIR's original-split); "val", the
            references and targets of its val pairs (VAL, DQU-CIR's val-split):
            about half as many, so recall is higher.  The default is the one that
            the release lists and that no choice of pairs changes.
        reference: "kept" in the gallery (CLIP4Cir, ComposeAE) or "removed" from it
            (VAL, ARTEMIS, DQU-CIR); "by-gallery" keeps it in the original gallery,
            as CLIP4Cir, and removes it from the val gallery, as VAL.
        text: how the two captions of a pair become a query.  "and": "c1 and c2"
            (CLIP4Cir, SEARLE); "token": a word of its own between them (MAAF, the
            start kit); "both-orders": two queries a pair, "c1 and c2" and "c2 and
            c1" (ARTEMIS); "each": each caption is a query (VAL).  With two queries
            a pair, recall is over queries.
        train_text: "random", each epoch one of "c1 and c2", "c2 and c1", c1, c2
            (CLIP4Cir); "same", the form of `text`.
    """

    gallery: Literal["original", "val"] = "original"
    reference: Literal["by-gallery", "removed", "kept"] = "by-gallery"
    text: Literal["and", "token", "both-orders", "each"] = "and"
    train_text: Literal["random", "same"] = "random"

    @property
    def removes_reference(self) -> bool:
        if self.reference == "by-gallery":
            return self.gallery == "val"
        return self.reference == "removed"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    return first_folder(pictures, data, lambda folder: bool(_categories(folder)))


def read(root: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError when a file of a category is missing or an entry is broken."""
    categories = _categories(root)
    parts = [_part(root, c, split) for c in categories for split in SPLITS[:2]]
    parts += [_part(root, c, "test") for c in categories if _captions(root, c, "test").is_file()]
    return Dataset(
        name=NAME,
        root=root,
        queries=pd.concat([_queries(part, options) for part in parts], ignore_index=True),
        images=pd.concat([_images(part, options) for part in parts], ignore_index=True),
        protocol=_protocol(options),
        pairs=RandomForm if options.train_text == "random" else Listed,
        recommended=LIGHT,
        notes=(*_absent(categories), *_blank(parts, options), *_unlisted(parts, options)),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    """Of the original gallery and of all names only what the options and categories leave."""
    images = dataset.images
    pairs = dataset.queries.drop_duplicates(["category", "split", "entry"])
    numbers = {f"{c} {s} pairs": len(part) for (c, s), part in pairs.groupby(["category", "split"])}
    for name, part in pairs[pairs["split"] == "val"].groupby("category"):
        named = pd.concat([part["reference"], part["target"]])
        numbers[f"{name} images of val pairs"] = named.nunique()
    whole = dataset.options.get("gallery") != "val"
    for (category, split), part in images.groupby(["category", "split"]):
        if whole or split != "val":
            numbers[f"{category} {split} images"] = len(part)
    if whole and images["category"].nunique() == len(CATEGORIES):
        numbers |= {"names": len(images), "distinct names": images["name"].nunique()}
    return {what: numbers[what] for what in PUBLISHED if what in numbers}


class _Entry(NamedTuple):
    candidate: str
    target: str | None
    captions: tuple[str, ...]


class _Part(NamedTuple):
    """A category's pairs and images of one split, as its two files list them."""

    category: str
    split: str
    captions: Path
    images: Path
    entries: list[_Entry]
    listed: list[str]

    @property
    def named(self) -> list[str]:
        """The images that the entries name, once each, in the order in which they do."""
        return list(dict.fromkeys(n for e in self.entries for n in e[:2] if n is not None))


def _captions(root: Path, category: str, split: str) -> Path:
    return root / "captions" / f"cap.{category}.{split}.json"


def _categories(root: Path) -> list[str]:
    """Those of which there is a file of captions to train on or to score."""
    return [
        category
        for category in CATEGORIES
        if any(_captions(root, category, split).is_file() for split in ("train", "val"))
    ]


def _part(root: Path, category: str, split: str) -> _Part:
    captions = _captions(root, category, split)
    images = root / "image_splits" / f"split.{category}.{split}.json"
    entries = []
    for place, record in enumerate(records_of(captions)):
        known = split != "test" or "target" in record
        entries.append(
            _Entry(
                name_in(record, "candidate", captions, place),
                name_in(record, "target", captions, place) if known else None,
                texts_in(record, "captions", 2, captions, place),
            )
        )
    return _Part(category, split, captions, images, entries, names_of(images))


def _queries(part: _Part, options: Options) -> pd.DataFrame:
    """Rows with, of the data set's own, category, entry (from 0), candidate and captions."""
    form = _form(part.split, options)
    rows = []
    for place, entry in enumerate(part.entries):
        texts = FORMS[form][1](*map(stripped, entry.captions))
        for number, text in enumerate(texts, start=1):
            name = f"{part.category}-{part.split}-{place}"
            rows.append(
                {
                    "query_id": f"{name}-{number}" if form in ("both-orders", "each") else name,
                    "reference": entry.candidate,
                    "text": text,
                    "target": entry.target,
                    "split": part.split,
                    "category": part.category,
                    "entry": place,
                    "candidate": entry.candidate,
                    "captions": list(entry.captions),
                }
            )
    if not rows:
        raise UserError(f"{part.captions} has no caption that is not blank: download it again")
    return pd.DataFrame(rows, dtype=object).astype({"entry": int})


def _form(split: str, options: Options) -> str:
    """The form of a split's texts; a submission has one ranking an entry, so one query."""
    if split == "train" and options.train_text == "random":
        return "and"
    if split == "test" and options.text in ("both-orders", "each"):
        return "and"
    return options.text


def _images(part: _Part, options: Options) -> pd.DataFrame:
    """Rows with, of the data set's own, name (the ASIN) and category."""
    names = part.named if (part.split, options.gallery) == ("val", "val") else part.listed
    columns = {"path": names, "caption": None, "split": part.split}
    return pd.DataFrame({**columns, "name": names, "category": part.category}, dtype=object)


def _protocol(options: Options) -> Protocol:
    galleries = {
        "original": "all images of the category's val list",
        "val": "the references and targets of the category's val pairs",
    }
    return Protocol(
        name=NAME,
        source=f"FashionIQ (Wu et al., CVPR 2021), {options.gallery} split",
        gallery=galleries[options.gallery],
        remove_reference=options.removes_reference,
        correct="target",
        recall_at=(1, 5, 10, 50, 100),
        scored="val",
        submitted="test",
        part="category",
        average=("R@10", "R@50"),
        text=FORMS[options.text][0],
        pairs="every listed pair once an epoch, its text one of c1 and c2, c2 and c1, c1, c2"
        if options.train_text == "random"
        else "every listed training query once an epoch",
    )


def _absent(categories: list[str]) -> Iterator[str]:
    missing = [category for category in CATEGORIES if category not in categories]
    if missing:
        yield (
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} absent: recall is "
            f"the mean over {' and '.join(categories)} alone"
        )


def _blank(parts: list[_Part], options: Options) -> Iterator[str]:
    """Entries of which a caption, or both, hold nothing."""
    fates = {1: "the other one is their text", 2: "their text is empty"}
    for number, what in ((1, "a blank caption"), (2, "two blank captions")):
        for dropped in (False, True):
            where = [
                f"{part.captions.name} entry {place}"
                for part in parts
                for place, entry in enumerate(part.entries)
                if (_form(part.split, options) == "each") is dropped
                and sum(not stripped(text) for text in entry.captions) == number
            ]
            if where:
                fate = "a blank caption is no query" if dropped else fates[number]
                yield f"entries with {what}: {len(where)}, first {where[0]} (from 0); {fate}"


def _unlisted(parts: list[_Part], options: Options) -> Iterator[str]:
    """Images that the captions name and the list of images does not."""
    for part in parts:
        listed = set(part.listed)
        outside = [name for name in part.named if name not in listed]
        missed = part.split == "val" and options.gallery == "original"
        if outside:
            yield (
                f"images that {part.captions.name} names and {part.images.name} does not list: "
                f"{len(outside)}, first {outside[0]}" + ("; no query can find them" * missed)
            )
