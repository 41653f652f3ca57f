"""What a run's wrong answers on generated scenes are.

    python benchmarks/quality/errors.py FASHION artifacts/runs/RUN

Of the queries whose first picture is wrong, how many show

- the right objects, but for the shape of some that the text leaves alone: misread shapes;
- a scene that differs from the reference by more than one change: another scene;
- else the reference's scene, rightly or wrongly changed elsewhere: another change;

and how often targets are missed that hold so many of the colour-shape pairs which no training
scene has.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.training.runs import Run


def scenes(folder, split):
    """Each picture's objects: {(cell, size, color, shape), ...} by path, drawings too."""
    found = {}
    for image in json.loads((folder / f"{split}.json").read_bytes())["images"]:
        objects = {(o["cell"], o["size"], o["color"], o["shape"]) for o in image["objects"]}
        found |= {image[key]: objects for key in ("file", "drawing") if image[key]}
    return found


def kind(query, reference, target, first):
    def shapeless(objects):
        return {one[:3] for one in objects}

    if query.attribute != "shape" and shapeless(target) == shapeless(first):
        return "misread shapes"
    return "another scene" if len(reference ^ first) > 2 else "another change"


def main(folder, run):
    test = scenes(folder, "test")
    known = {one[2:] for objects in scenes(folder, "train").values() for one in objects}
    queries = pd.read_parquet(Stored(Run.load(run).evaluation()).queries)
    wrong, missed, all_of = Counter(), Counter(), Counter()
    for query in queries.itertuples():
        target = test[query.target]
        novel = sum(one[2:] not in known for one in target)
        all_of[novel] += 1
        if query.rank != 1:
            missed[novel] += 1
            wrong[kind(query, test[query.reference], target, test[query.found[0]])] += 1
    print(f"{wrong.total()} of {len(queries)} queries are wrong at first")
    for name, count in wrong.most_common():
        print(f"  {name:16}{count:6}")
    print("objects of unseen pairs in the target, queries, wrong at first")
    for novel, count in sorted(all_of.items()):
        print(f"  {novel:4}{count:8,}{100 * missed[novel] / count:8.2f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
