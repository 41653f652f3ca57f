"""An evaluation on disk, as `cqr evaluate` and every cell of a comparison leave it in a run.

metrics.json     recall under the protocol, and what it was scored with
queries.parquet  a row a query, with what it found
report.html      the page, if it was asked for
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cqr.atomic import replacing
from cqr.errors import UserError, reason, scarcity
from cqr.typed import parsed

if TYPE_CHECKING:  # to read metrics.json takes none of them
    import pandas as pd
    import pyarrow

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

    def write(self, evaluation: "Evaluation") -> None:
        """The metrics come last: where they are, the queries are too."""
        with replacing(self.queries) as temporary:
            evaluation.queries.to_parquet(temporary, index=False)
        with replacing(self.metrics) as temporary:
            temporary.write_text(json.dumps(evaluation.metrics, indent=1), encoding="utf-8")

    def read_metrics(self) -> dict[str, Any]:
        """What metrics.json holds.  Raises UserError where it is damaged."""
        with _readable(self.metrics):
            content = parsed(self.metrics.read_bytes())
            if not isinstance(content, dict) or not content.keys() >= {"recall", "measures"}:
                raise ValueError("no recall in it")
        return content

    def read_queries(self, columns: Sequence[str]) -> "pd.DataFrame":
        """Some columns of queries.parquet.  Raises UserError where it is damaged."""
        frame: pd.DataFrame = self.read_table(columns).to_pandas()
        return frame

    def read_table(self, columns: Sequence[str]) -> "pyarrow.Table":
        """The same, as Arrow has it."""
        import pyarrow.parquet

        with _readable(self.queries):
            return pyarrow.parquet.read_table(self.queries, columns=list(columns))


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the readers of damaged bytes raise what they like
        why = scarcity(error) or f"{reason(error)}; delete its folder and score the run again"
        raise UserError(f"cannot read {file}: {why}") from error
