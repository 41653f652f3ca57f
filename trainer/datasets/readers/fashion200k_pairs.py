"""Training pairs of Fashion-200k: images whose descriptions differ in one word.

google/tirg, datasets.py, class Fashion200k: caption_index_init_, caption_index_sample_,
get_different_word.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from cqr.trainer.datasets.groups import Groups, Index
from cqr.trainer.datasets.pairs import Drawn


def replacement(source: Sequence[str], target: Sequence[str]) -> str:
    """ "replace X with Y", from the words of two descriptions.

    X is the first word of the source that the target lacks, Y the other way round.
    Where it lacks none TIRG's loop ends with its last word, which is kept.
    """
    gone = next((word for word in source if word not in target), source[-1] if source else "")
    new = next((word for word in target if word not in source), target[-1] if target else "")
    return f"replace {gone} with {new}"


class Siblings:
    """Pairs of images with sibling captions: equal but for one word of each.

    What is left of a caption without a word is a parent; a parent's captions are
    siblings.  The target's caption is drawn as in TIRG's code: a parent of the
    source's caption, then one of its children, both again until it is allowed; then
    an image of that caption.

    Args:
        queries: not used, since test queries are no training pairs.
        images: of the training split; path, caption.
        clean: parents lack one whole word that occurs once, siblings must differ in
            it, and only images that have siblings are sources.  Else TIRG's rules.

    Attributes:
        modifiable: places of the images whose caption has a sibling.
    """

    def __init__(self, queries: pd.DataFrame, images: pd.DataFrame, clean: bool = False) -> None:
        self.clean = clean
        self.paths = images["path"].to_numpy(object)
        self.caption, captions = pd.factorize(images["caption"])
        self.words = [caption.split() for caption in captions]
        parent, self.child, self.key = _families(captions, self.words, clean)
        self.family = Groups(parent)
        self.own = Groups(self.child)
        self.image = Groups(self.caption)
        self.modifiable = np.flatnonzero(np.isin(self.caption, self.child))

    def __len__(self) -> int:
        return len(self.modifiable) if self.clean or not len(self.modifiable) else len(self.paths)

    def texts(self) -> Iterable[str]:
        """The template, and every caption that has a sibling."""
        yield "replace with"
        for caption in np.unique(self.child):
            yield " ".join(self.words[caption])

    def draw(self, rng: np.random.Generator) -> Drawn:
        source = self._sources(rng)
        caption = self.caption[source]
        wanted = np.empty_like(caption)
        left = np.arange(len(source))
        while len(left):
            mine = self.own.draw(rng, caption[left])
            other = self.family.draw(rng, self.family.label[mine])
            allowed = self.key[mine] != self.key[other]
            wanted[left[allowed]] = self.child[other[allowed]]
            left = left[~allowed]
        target = self.image.draw(rng, wanted)
        words = self.words
        texts = [replacement(words[s], words[t]) for s, t in zip(caption, wanted, strict=True)]
        return Drawn(self.paths[source], np.array(texts, dtype=object), self.paths[target])

    def _sources(self, rng: np.random.Generator) -> Index:
        """Images in a new order; by TIRG's rules also those without siblings, drawn anew."""
        if self.clean or not len(self.modifiable):
            return rng.permutation(self.modifiable)
        source = rng.permutation(len(self.paths))
        without = ~np.isin(source, self.modifiable)
        source[without] = rng.choice(self.modifiable, int(without.sum()))
        return source


def _families(
    captions: Iterable[str], words: list[list[str]], clean: bool
) -> tuple[Index, Index, Index]:
    """The children of each parent that has two that may be paired.

    Returns:
        Of each child: its parent, its caption, and a key that must differ within a
        pair; whole numbers from 0.
    """
    parents: dict[str, int] = {}
    keys: dict[str, int] = {}
    rows = [
        (parents.setdefault(parent, len(parents)), child, keys.setdefault(key, len(keys)))
        for child, (caption, own) in enumerate(zip(captions, words, strict=True))
        for parent, key in (_less_a_word(own) if clean else _less_a_text(caption, own))
    ]
    parent, child, key = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    distinct = np.unique(parent * len(keys) + key) // max(len(keys), 1)
    paired = np.bincount(distinct, minlength=len(parents))[parent] >= 2
    return parent[paired], child[paired], key[paired]


def _less_a_word(words: list[str]) -> Iterator[tuple[str, str]]:
    """The parents of a caption without one whole word that occurs once; the word is the key."""
    for place, word in enumerate(words):
        rest = words[:place] + words[place + 1 :]
        if word not in rest:
            yield " ".join(rest), word


def _less_a_text(caption: str, words: list[str]) -> Iterator[tuple[str, str]]:
    """The parents of a caption in TIRG's code; the caption is the key.

    A word's letters are deleted wherever they stand, inside other words too, and
    double spaces are made single once.
    """
    parents = (caption.replace(word, "").replace("  ", " ").strip() for word in words)
    for parent in dict.fromkeys(parents):
        yield parent, caption
