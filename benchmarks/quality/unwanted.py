"""Does `cqr search --not` push away what it names, and what does that cost?

    python benchmarks/quality/unwanted.py [--run DIR] [--references 150] [--pairs 6]

For pairs of scored queries A and B of one reference with different correct images, asks for A
alone and for A with `--not` B, by several strengths; then for the reference itself without a
text, alone and with `--not` B.  Prints how often A's correct image is the first and among the
first ten, and how often B's is among the first ten and fifty, of the scored gallery without the
reference.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from cqr.search import vector
from cqr.search.question import Question, Reference, WeightedText
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.ranking.encode import encode_images
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.runs import Run, newest

CPU = torch.device("cpu")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--references", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=6)
    options = parser.parse_args()
    run = Run.load(options.run) if options.run else newest()
    material = collect_for(run, None, Wanted(), split="scored", max_missing=0.01)
    reader = material.seen_by(run.settings).reader
    model, words = run.trained_model(), run.words()
    work = tasks(material.dataset, material.dataset.protocol.scored)[0]
    with torch.inference_mode():
        gallery = encode_images(model, reader, reader.rows(work.gallery), CPU).numpy()
    queries = work.queries.reset_index(drop=True)
    rng = np.random.default_rng(0)
    ranks: dict[tuple[str, float], list[tuple[int, int]]] = defaultdict(list)
    for name, rows in list(queries.groupby("reference", sort=False).groups.items())[
        : options.references
    ]:
        reference = Reference(name, reader.gather(reader.rows([name])))
        for _ in range(options.pairs):
            a, b = rng.choice(rows, 2, replace=len(rows) < 2)
            if np.intersect1d(work.correct[a], work.correct[b]).size:
                continue
            for what, texts in (("A", (WeightedText(queries["text"][a]),)), ("like it", ())):
                for vector.AWAY in STRENGTHS:
                    asked = Question((reference,), texts, (queries["text"][b],))
                    scores = gallery @ vector.vector_of(model, words, asked, CPU).numpy()
                    scores[work.reference[a]] = -np.inf
                    found = (first(scores, work.correct[a]), first(scores, work.correct[b]))
                    ranks[what, vector.AWAY].append(found)
    print(f"{run.path.name}, {len(ranks['A', 0.0])} pairs, a gallery of {len(gallery):,}")
    print(f"{'asked':8} {'strength':>8} {'A: R@1':>7} {'A: R@10':>8} {'B: top10':>9} {'top50':>6}")
    for (what, strength), pairs in ranks.items():
        wanted, unwanted = np.array(pairs).T
        shares = [100 * np.mean(wanted <= k) for k in (1, 10)] if what == "A" else [np.nan] * 2
        shares += [100 * np.mean(unwanted <= k) for k in (10, 50)]
        print(f"{what:8} {strength:8.2f} " + "{:7.1f} {:8.1f} {:9.1f} {:6.1f}".format(*shares))


def first(scores: np.ndarray, correct: np.ndarray) -> int:
    """The rank of the best correct image."""
    return int((scores > scores[correct].max()).sum()) + 1 if len(correct) else len(scores)


if __name__ == "__main__":
    main()
