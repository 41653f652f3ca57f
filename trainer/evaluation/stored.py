"""An evaluation on disk, as `cqr evaluate` and every cell of a comparison leave it in a run.

metrics.json     recall under the protocol, and what it was scored with
queries.parquet  a row a query, with what it found
report.html      the page, if it was asked for
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cqr.atomic import replacing
from cqr.trainer.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Stored:
    """The files of one evaluation, in a folder of their own (`Run.evaluation`)."""

    folder: Path

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def queries(self) -> Path:
        return self.folder / "queries.parquet"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    def write(self, evaluation: Evaluation) -> None:
        """The metrics come last: where they are, the queries are too."""
        with replacing(self.queries) as temporary:
            evaluation.queries.to_parquet(temporary, index=False)
        with replacing(self.metrics) as temporary:
            temporary.write_text(json.dumps(evaluation.metrics, indent=1), encoding="utf-8")

    def read_metrics(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        return content

    def read_queries(self, columns: Sequence[str]) -> pd.DataFrame:
        return pd.read_parquet(self.queries, columns=list(columns))
