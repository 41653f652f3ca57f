"""How much of the reference's own vector to seek with: recall of trained runs, by that weight.

    python benchmarks/comparison/reference_weight.py RUN [RUN ...] [--weights 0,0.1,0.2,0.4,0.8]

A run's training is without it (`RetrievalModel.query`), so one training serves for all weights.
Prints R@1, R@5 and R@50 on the split that the run's data set scores, so choose a weight by runs on
a development world.
"""

import argparse

import torch

from cqr.trainer.datasets.queries import tasks
from cqr.trainer.ranking.encode import encode
from cqr.trainer.ranking.metrics import recall_at
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.runs import Run

KS = (1, 5, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--weights", default="0,0.1,0.2,0.3,0.4,0.5,0.7,1")
    o = parser.parse_args()
    torch.set_num_threads(1)
    for path in o.runs:
        run = Run.load(path)
        material = collect_for(run, None, Wanted(), split=None, max_missing=0.01)
        reader = material.seen_by(run.settings).reader
        (work,) = tasks(material.dataset, material.dataset.protocol.scored)
        model, words = run.trained_model(), run.words()
        print(f"{path}: {len(work.queries):,} queries")
        for weight in map(float, o.weights.split(",")):
            model.reference_weight = weight
            ranks = encode(model, reader, words, work, torch.device("cpu")).rank(work).rank
            print(f"  {weight:4.2f} ", *(f"R@{k} {recall_at(ranks, k):6.2f}" for k in KS))


if __name__ == "__main__":
    main()
