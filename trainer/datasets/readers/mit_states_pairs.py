"""Training pairs of MIT-States: an image, and two of its noun in other states.

google/tirg, datasets.py, class MITStates: __getitem__, caption_index_sample_.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cqr.trainer.datasets.groups import Groups
from cqr.trainer.datasets.pairs import Drawn


class Changes:
    """Pairs in twos: one reference, two targets of its noun in states that differ.

    Args:
        queries: not used, since test queries are no training pairs.
        images: of the training split; path, adjective, noun.  Those whose noun has one
            adjective only are left out.
        clean: both states differ from the reference's too (where the noun has but two,
            both targets are in the other one).  Else TIRG's rules, where a state may be
            the reference's own, and a target the reference itself.
    """

    def __init__(self, queries: pd.DataFrame, images: pd.DataFrame, clean: bool = False) -> None:
        self.clean = clean
        several = images.groupby("noun")["adjective"].transform("nunique") >= 2
        images = images[several]
        self.paths = images["path"].to_numpy(object)
        states = images.groupby(["noun", "adjective"], sort=True)
        self.state = states.ngroup().to_numpy().astype(np.int64)
        named = pd.DataFrame(states.size().index.to_list(), columns=["noun", "adjective"])
        self.adjective = named["adjective"].to_numpy(object)
        # of each state; a noun's lie together
        self.noun = pd.factorize(named["noun"])[0].astype(np.int64)
        self.states = Groups(self.noun)
        self.images = Groups(self.state)

    def __len__(self) -> int:
        return len(self.paths)

    def texts(self) -> Iterable[str]:
        return dict.fromkeys(self.adjective)

    def draw(self, rng: np.random.Generator) -> Drawn:
        n = len(self)
        source = rng.permutation(n)[: (n + 1) // 2]
        own = self.state[source]
        first, number = (of[self.noun[own]] for of in (self.states.first, self.states.size))
        choices = number - self.clean
        one = rng.integers(0, choices)
        other = (one + 1 + rng.integers(0, np.maximum(choices - 1, 1))) % choices
        drawn = np.stack([one, other], axis=1)
        if self.clean:  # counted from the state after the reference's own
            drawn = (drawn + (own - first + 1)[:, None]) % number[:, None]
        state = (first[:, None] + drawn).ravel()[:n]
        target = self.images.draw(rng, state)
        return Drawn(self.paths[source.repeat(2)[:n]], self.adjective[state], self.paths[target])
