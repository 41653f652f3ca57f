"""Score a model under a data set's protocol: the one evaluator for all data sets."""

from collections import Counter
from dataclasses import asdict, dataclass
from html import escape
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch

from cqr.errors import UserError
from cqr.trainer.datasets.queries import Dataset, tasks
from cqr.trainer.evaluation import pointing
from cqr.trainer.features import RegionReader
from cqr.trainer.models.from_joint import FromJoint
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.ranking.bootstrap import interval, paired, weights_of
from cqr.trainer.ranking.encode import encode
from cqr.trainer.ranking.measures import Measured, combined, measure
from cqr.trainer.text.vocabulary import TextReader
from cqr.trainer.training.fitting import check_fits
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run


@dataclass(frozen=True)
class Evaluation:
    """Recall of one run on one split.

    Attributes:
        metrics: what metrics.json holds.
        queries: a row a query: its columns, and rank, found, scores.
    """

    metrics: dict[str, Any]
    queries: pd.DataFrame

    @property
    def recall(self) -> dict[int, float]:
        """R@k in percent, by k."""
        return {int(k): value for k, value in self.metrics["recall"].items()}

    def _repr_html_(self) -> str:
        """Recall of all queries, its interval, and what chance would give."""
        m = self.metrics
        low, high = zip(*m["interval"].values(), strict=True)
        ks = list(m["recall"])
        rows = {
            m["model"]: m["recall"],
            "95 % from": dict(zip(ks, low, strict=True)),
            "to": dict(zip(ks, high, strict=True)),
            "chance": m["chance"],
        }
        table = pd.DataFrame(rows, index=ks).T.rename(columns=lambda k: f"R@{k}")
        said = f"{m['run']} on {m['dataset']}, {m['split']} split, {m['queries']:,} queries"
        return f"<p>{escape(said)}</p>{table.to_html(float_format='{:.2f}'.format, border=0)}"


def evaluate(run: Run, material: Material, device: torch.device) -> Evaluation:
    """Score a run's chosen weights on the split that the data set's protocol scores.

    Raises:
        UserError: the run has no weights, they do not fit, no query is to be
            scored, no image of a gallery has regions, or the run's text encoder
            cannot be had.
    """
    dataset, reader = material.dataset, material.seen_by(run.settings).reader
    protocol = dataset.protocol
    check_fits(run, reader)
    model = run.trained_model().to(device)
    if dataset.split(protocol.scored).empty:
        raise UserError(f"{dataset.root} has no queries of its {protocol.scored} split to score")
    words = run.words(device)
    parts = _measured(model, dataset, reader, words, device)
    per_query = pd.concat([part.per_query for part in parts])
    start = None
    if isinstance(model, FromJoint):
        start = _start(dataset, parts, _measured(model.start, dataset, reader, words, device))
    texts = per_query["text"]
    unknown = run.vocabulary.unknown(texts) if run.vocabulary else Counter()
    whole = combined(dataset, parts)
    weights = weights_of(per_query, protocol.part if len(parts) > 1 else None)
    return Evaluation(
        {
            "run": run.path.name,
            "model": run.settings.model,
            "dataset": dataset.name,
            "split": protocol.scored,
            "protocol": protocol.sentence(),
            "options": dict(dataset.options),
            "select": run.settings.select,
            "k": reader.k,
            **whole,
            "interval": {
                k: list(interval(per_query["rank"].to_numpy(), int(k), weights))
                for k in whole["recall"]
            },
            "start": start,
            "pointing": pointing.measure(model, words, reader, per_query, device),
            "text_encoder": run.text_encoder.name if run.text_encoder else None,
            "texts_cut": words.cut(texts),
            "unknown_words": dict(unknown.most_common(20)),
            "cqr": version("cqr"),
            "torch": torch.__version__,
        },
        per_query,
    )


def _measured(
    model: RetrievalModel,
    dataset: Dataset,
    reader: RegionReader,
    words: TextReader,
    device: torch.device,
) -> list[Measured]:
    """The results of a model on each task of the split that is scored."""
    scored, parts = dataset.protocol.scored, []
    for work in tasks(dataset, scored):
        if not work.gallery:
            raise UserError(f"none of the {scored} images has regions in {reader.file.path}")
        parts.append(measure(dataset, work, encode(model, reader, words, work, device)))
    return parts


def _start(dataset: Dataset, learned: list[Measured], start: list[Measured]) -> dict[str, Any]:
    """What a model started from, and how far it came: for each k a paired bootstrap."""
    ranks, before = (pd.concat([part.per_query for part in parts]) for parts in (learned, start))
    weights = weights_of(ranks, dataset.protocol.part)
    whole = combined(dataset, start)
    difference = {}
    for k in dataset.protocol.recall_at:
        hits, hits_before = (
            frame["rank"].between(1, k).to_numpy().astype(np.float64) for frame in (ranks, before)
        )
        found = asdict(paired(hits, hits_before, weights))
        share = found.pop("not_better")
        difference[str(k)] = {name: 100 * v for name, v in found.items()} | {"not_better": share}
    return {
        "model": "zero-shot",
        "recall": whole["recall"],
        "measures": whole["measures"],
        "difference": difference,
    }
