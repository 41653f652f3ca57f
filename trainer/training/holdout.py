"""What a training learns from, and the queries that choose its epoch."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.trainer.datasets.pairs import Listed, PairSource, cut
from cqr.trainer.datasets.queries import Dataset, Task, own_images, task, tasks
from cqr.trainer.training.settings import Settings


def divide(dataset: Dataset, settings: Settings) -> tuple[PairSource, list[Task]]:
    """The source of training pairs, and the tasks by which the epoch is chosen; see `_divide`.

    Raises:
        UserError: pairs are asked to come together where a data set draws them itself.
    """
    source, choice = _divide(dataset, settings)
    if settings.together > 1:
        if not isinstance(source, Listed):
            raise UserError(
                f"--together {settings.together}: {dataset.name} draws its training pairs by a "
                "rule of its own; leave it out"
            )
        source.together = settings.together
    return source, choice


def _divide(dataset: Dataset, settings: Settings) -> tuple[PairSource, list[Task]]:
    """The source of training pairs, and the tasks by which the epoch is chosen.

    Chosen by "validation", that is the data set's own val split, unless it is
    the one that is scored; else a share of the training references, or of the
    groups of training images where pairs are drawn from images, which are then
    not trained on.  Their gallery is every image of the training queries, so that it is as
    large as the one of the test: among a twentieth of it a weak model does as well as a good one.
    """
    scored = dataset.protocol.scored
    queries, images = dataset.split("train"), dataset.images_of("train")
    if settings.select == "test":
        return dataset.pairs(queries, images), tasks(dataset, scored)
    if settings.select == "last" or settings.validation == 0:
        return dataset.pairs(queries, images), []
    if scored != "val" and len(dataset.split("val")):
        return dataset.pairs(queries, images), tasks(dataset, "val")
    if len(queries):
        held = cut(queries, "reference", settings.validation, settings.seed)
        return dataset.pairs(queries[~held], images), [_listed(dataset, queries, held)]
    if "group" not in images or images.empty:
        return dataset.pairs(queries, images), []  # nothing is left: training says so
    held = cut(images, "group", settings.validation, settings.seed)
    choice = _drawn(dataset, images, held, settings.seed)
    return dataset.pairs(queries, images[~held]), [choice] if len(choice.queries) else []


def _listed(dataset: Dataset, queries: pd.DataFrame, held: NDArray[np.bool_]) -> Task:
    """Held-out queries against the images of all, or against every image if the gallery is."""
    chosen = queries[held]
    if dataset.images["split"].isna().all():
        return task(dataset, chosen, dataset.gallery("train"))
    columns = [own_images(queries), queries["target"]]
    if "gallery" in queries:
        columns.append(queries["gallery"].explode())
    return task(dataset, chosen, pd.unique(pd.concat(columns).dropna()).tolist())


def _drawn(dataset: Dataset, images: pd.DataFrame, held: NDArray[np.bool_], seed: int) -> Task:
    """One epoch of pairs drawn from held-out images, against all of the training's."""
    source = dataset.pairs(dataset.queries.iloc[:0], images[held])
    drawn = source.draw(np.random.default_rng(seed))
    asked = pd.DataFrame(
        {
            "query_id": [f"held-{i}" for i in range(len(drawn))],
            "reference": drawn.reference,
            "text": drawn.text,
            "target": drawn.target,
            "split": "train",
        }
    )
    return task(dataset, asked, images["path"].tolist())
