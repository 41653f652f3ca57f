"""What the vectors of a gallery were made of, and whether that is still so."""

from typing import Any

from cqr.digest import sha256
from cqr.trainer.features import RegionReader
from cqr.trainer.training.fitting import check_fits
from cqr.trainer.training.runs import Run


def source(run: Run, reader: RegionReader) -> dict[str, Any]:
    """What decides the vectors: the weights, and the regions that they are given.

    Raises:
        UserError: the run has no weights, or was trained on regions of another width.
    """
    check_fits(run, reader)
    if not run.weights.exists():
        run.trained_model()  # says so
    return {
        "weights": sha256(run.weights),
        "features": reader.file.header.set_id,
        "k": reader.k,
        "input": reader.kind,
    }


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Why vectors of the one source are none of the other; "" if they are."""
    said = {
        "weights": "the run has other weights",
        "features": "the features were extracted anew",
        "k": "the run reads another number of regions",
        "input": "the run is given something else of a picture",
    }
    return " and ".join(said[name] for name in said if old.get(name) != new[name])
