"""Training pairs of Fashion-200k: images whose descriptions differ in one word.

google/tirg, datasets.py, class Fashion200k: caption_index_init_, caption_index_sample_,
get_different_word.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from cqr.trainer.datasets.families import Families, less_words
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
        self.families = Families(
            (parent, child, key)
            for child, (caption, own) in enumerate(zip(captions, self.words, strict=True))
            for parent, key in (less_words(own) if clean else _less_a_text(caption, own))
        )
        self.image = Groups(self.caption)
        self.modifiable = np.flatnonzero(np.isin(self.caption, self.families.askers))

    def __len__(self) -> int:
        return len(self.modifiable) if self.clean or not len(self.modifiable) else len(self.paths)

    def texts(self) -> Iterable[str]:
        """The template, and every caption that has a sibling."""
        yield "replace with"
        for caption in self.families.askers:
            yield " ".join(self.words[caption])

    def draw(self, rng: np.random.Generator) -> Drawn:
        source = self._sources(rng)
        caption = self.caption[source]
        _, other = self.families.draw(rng, caption)
        wanted = self.families.child[other]
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


def _less_a_text(caption: str, words: list[str]) -> Iterator[tuple[str, str]]:
    """The parents of a caption in TIRG's code; the caption is the key.

    A word's letters are deleted wherever they stand, inside other words too, and
    double spaces are made single once.
    """
    parents = (caption.replace(word, "").replace("  ", " ").strip() for word in words)
    for parent in dict.fromkeys(parents):
        yield parent, caption
