"""Which phrases of a crowd does a run understand, and which does it know by heart?

    python benchmarks/quality/phrases.py artifacts/runs/RUN [--queries 4000]

Of queries of the training and of the test whose object is known, by what the phrase goes by: how
often what the text changes most is the object meant, and, of the test, where the right picture
came first.  Phrases that are worded as no training's are counted apart.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cqr.trainer.evaluation.pointing import hits, known
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.runs import Run

WAYS = {
    "nearest": "nearest",
    "first": "first",
    "second": "second",
    "third or more": "third|fourth|fifth",
    "beside": r"left of|right of|front of|behind|back of",
    "not": r"\bnot\b",
}
"""What a phrase goes by, the first that fits; else it is plain."""


def way_of(phrase):
    return next((way for way, words in WAYS.items() if re.search(words, phrase)), "plain")


def pointed(model, words, reader, queries, number):
    """So many queries whose object is known, and whether what the text changes most is that."""
    asked, rows, meant = known(queries, reader)
    some = pd.Series(range(len(asked))).sample(min(number, len(asked)), random_state=0).to_numpy()
    asked, rows, meant = asked.iloc[some], rows[some], meant[some]
    cpu = torch.device("cpu")
    _, right = hits(model, words, reader, asked, rows, meant, ["change"], cpu)
    return asked.assign(right=right["change"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--queries", type=int, default=4000)
    o = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.load(o.run)
    material = collect_for(run, None, Wanted(), split=None, max_missing=0)
    reader, model = material.seen_by(run.settings).reader, run.trained_model().eval()
    words = run.words(torch.device("cpu"))
    ranks = pd.read_parquet(Stored(run.evaluation()).queries).set_index("query_id")["rank"]
    cells = defaultdict(dict)
    for split in ("train", "test"):
        asked = pointed(model, words, reader, material.dataset.split(split), o.queries)
        asked["first"] = asked["query_id"].map(ranks) == 1
        groups = asked.groupby([asked["phrase"].map(way_of), "wording"])
        for (way, wording), some in groups:
            cells[way][split, wording] = len(some), some["right"].mean(), some["first"].mean()
    print("                             points at the object meant, %")
    print("              queries    R@1   training   test   new wording")
    for way in ("plain", *WAYS):
        seen, new = (cells[way].get(("test", w), (0, np.nan, np.nan)) for w in ("seen", "new"))
        _, learned, _ = cells[way].get(("train", "seen"), (0, np.nan, np.nan))
        number = seen[0] + new[0]
        recall = sum(one[0] * one[2] for one in (seen, new) if one[0]) / max(1, number)
        shares = (recall, learned, seen[1], new[1])
        recall, learned, told, anew = (f"{100 * share:.1f}" for share in shares)
        print(f"{way:14}{number:7}{recall:>7}{learned:>11}{told:>7}{anew:>14}")


if __name__ == "__main__":
    main()
