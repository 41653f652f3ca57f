"""A pair of images that two captions describe, as FashionIQ's, to the texts of its queries."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from cqr.trainer.datasets.pairs import Drawn, Listed

_ENDS = re.compile(r"^[\s.?,]+|[\s.?,]+$")

TOKEN = " inadditiontothat "
"""A word that no caption has: MAAF's, in place of the start kit's and ARTEMIS's <and>."""

FORMS: dict[str, tuple[str, Callable[[str, str], list[str]]]] = {
    "and": ('both captions joined by "and"', lambda a, b: [joined(a, b)]),
    "token": ("both captions joined by a word of its own", lambda a, b: [joined(a, b, TOKEN)]),
    "both-orders": (
        'both captions joined by "and", either order a query',
        lambda a, b: [joined(a, b), joined(b, a)],
    ),
    "each": ("one of the two captions, each a query", lambda a, b: [c for c in (a, b) if c]),
}
"""In words, and the texts that two stripped captions make; either may be blank."""


class RandomForm(Listed):
    """Every pair once an epoch, its text in a random one of four forms.

    As in CLIP4Cir, src/utils.py, generate_randomized_fiq_caption: both captions in
    one order, in the other, the first alone, the second alone, equally often.  The
    queries have a column `captions` of two texts each.
    """

    def __init__(self, queries: pd.DataFrame, images: pd.DataFrame | None = None) -> None:
        super().__init__(queries)
        pairs = [tuple(map(stripped, two)) for two in queries["captions"]]
        forms = [[joined(a, b), joined(b, a), a or b, b or a] for a, b in pairs]
        self._forms = np.array(forms, dtype=object).reshape(-1, 4)

    def draw(self, rng: np.random.Generator) -> Drawn:
        order = self.order(rng)
        form = rng.integers(4, size=len(self))
        reference, target = (
            self.queries[name].to_numpy(object)[order] for name in ("reference", "target")
        )
        return Drawn(reference, self._forms[order, form], target)


def joined(first: str, second: str, link: str = " and ") -> str:
    """Both, or the one that is not blank."""
    return link.join(text for text in (first, second) if text)


def stripped(caption: str) -> str:
    """Without white space and ".?," at its ends, as CLIP4Cir, which also sets a capital."""
    return _ENDS.sub("", caption)
