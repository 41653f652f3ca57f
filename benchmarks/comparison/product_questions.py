"""The questions that products.py asks of photographs of products, and the texts that it reads.

Its docstring says which files a folder holds and which questions are asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cqr.trainer.datasets.queries import Dataset, Protocol
from cqr.trainer.text.vocabulary import TextSpec, Vocabulary, WordBatch
from cqr.trainer.training.runs import Run

COLUMNS = ["gender", "baseColour", "articleType"]
FORMS = {"gender": "for {}", "baseColour": "in {}", "articleType": "as {}"}
SPACE = "clip_vit_b32"
NAMES = {
    "Shirts": "lvis shirt", "Tshirts": "lvis jersey", "Watches": "lvis watch",
    "Tops": "lvis blouse", "Handbags": "lvis handbag", "Heels": "openimages high heels",
    "Wallets": "lvis wallet", "Flip Flops": "lvis flip-flop_(sandal)", "Belts": "lvis belt",
    "Jeans": "lvis jean", "Sandals": "lvis sandal_(type_of_shoe)",
    "Sunglasses": "lvis sunglasses", "Socks": "lvis sock", "Briefs": "lvis underwear",
    "Perfume and Body Mist": "lvis perfume", "Lipstick": "openimages lipstick",
    "Shorts": "lvis short_pants", "Bra": "lvis brassiere", "Earrings": "lvis earring",
    "Sweaters": "lvis sweater", "Clutches": "lvis clutch_bag",
    "Sweatshirts": "lvis sweatshirt", "Men": "openimages man", "Women": "openimages woman",
}  # fmt: skip
"""Names among the stored texts for values of the columns."""

PROTOCOL = Protocol(
    name="products",
    source="ours",
    gallery="the pictures that were not trained on",
    remove_reference=True,
    correct="caption",
    recall_at=(1, 5, 10, 50),
)


# --- questions -----------------------------------------------------------------------------------


def pictures(folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """The pictures that are asked about: path, the three columns, caption, split."""
    d = pd.read_csv(folder / "styles.csv", keep_default_na=False)
    d = d[d.gender.isin(["Men", "Women"]) & ~d.baseColour.isin(["NA", "Multi", ""])]
    for _ in range(4):  # leaving out one rare value may make another rare
        d = d[d.articleType.map(d.articleType.value_counts()) >= 14]
        d = d[d.baseColour.map(d.baseColour.value_counts()) >= 20]
    d = d.sort_values("id").reset_index(drop=True)
    d["path"] = d.id.astype(str) + ".jpg"
    d["caption"] = d[COLUMNS].agg(" ".join, axis=1).str.lower()
    d["split"] = np.where(rng.random(len(d)) < 0.6, "train", "test")
    return d[["path", *COLUMNS, "caption", "split"]]


def drawn(of: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Of each picture and column up to three pairs to train on, or one question."""
    rows = []
    for split, number in (("train", 3), ("test", 1)):
        part = of[of.split == split]
        by = {caption: group.path.to_numpy() for caption, group in part.groupby("caption")}
        captions = part.drop_duplicates("caption").set_index("caption")[COLUMNS]
        for r in part.itertuples():
            for column in COLUMNS:
                alike = np.logical_and.reduce(
                    [captions[other] == getattr(r, other) for other in COLUMNS if other != column]
                )
                there = captions.index[alike & (captions[column] != getattr(r, column))]
                if not len(there):
                    continue
                for caption in rng.choice(there, min(number, len(there)), replace=False):
                    target = by[caption][0] if split == "test" else rng.choice(by[caption])
                    new = captions.loc[caption, column]
                    text = FORMS[column].format(new.lower())
                    rows.append((r.path, text, target, split, column, new))
    frame = pd.DataFrame(rows, columns=["reference", "text", "target", "split", "column", "new"])
    return frame.assign(query_id=[str(i) for i in range(len(frame))])


def read(folder: Path, held_out: bool) -> Dataset:
    """Pictures and questions, the same ones each time; held out, of the training's alone."""
    rng = np.random.default_rng(0)
    of = pictures(folder, rng)
    if held_out:
        of = of[of["split"] == "train"].reset_index(drop=True)
        rng = np.random.default_rng(1)
        of["split"] = np.where(rng.random(len(of)) < 0.7, "train", "test")
    return Dataset("products", folder, drawn(of, rng), of, PROTOCOL, breakdown=("column",))


# --- texts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """Reads the words of a text by a vocabulary, and its vector from a file, if it has one."""

    words: Vocabulary
    vectors: Tensor  # T x E, of all stored names
    place: dict[str, int]  # texts of questions to rows
    temperature: float | None = None

    @property
    def spec(self) -> TextSpec:
        return self.words.spec

    def encode(self, texts: list[str]) -> WordBatch:
        read = self.words.encode(texts)
        none = torch.zeros(self.vectors.shape[1])
        rows = [self.vectors[self.place[t]] if t in self.place else none for t in texts]
        return WordBatch(read.tokens, read.mask, torch.stack(rows))

    def cut(self, texts: Iterable[str]) -> int:
        return self.words.cut(texts)

    def tokens(self, text: str) -> list[str]:
        return self.words.tokens(text)

    def phrases(self) -> Tensor:
        return self.vectors


def stored(folder: Path, words: Vocabulary) -> Stored:
    place = folder / SPACE
    lines = (place / "texts.txt").read_text(encoding="utf-8").splitlines()
    row = {line.replace("\t", " ").lower(): i for i, line in reversed(list(enumerate(lines)))}
    said = {}
    for column, form in FORMS.items():
        for value, name in NAMES.items():
            person = value in ("Men", "Women")
            if name in row and column == ("gender" if person else "articleType"):
                said[form.format(value.lower())] = row[name]
    vectors = torch.from_numpy(np.load(place / "texts.npy").astype(np.float32))
    return Stored(words, vectors, said)


@dataclass(frozen=True)
class StoredRun(Run):
    """A run whose texts are read from files."""

    texts: Any = None

    def words(self, device: torch.device | None = None) -> Any:
        return self.texts
