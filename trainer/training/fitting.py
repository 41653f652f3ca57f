"""Whether features fit a run, and what of them its model is given."""

from collections.abc import Mapping
from typing import Any

from cqr.errors import UserError
from cqr.trainer.features import RegionReader
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings


def seen(reader: RegionReader, settings: Settings) -> RegionReader:
    """The regions of a file, as a model of these settings is given them.

    Raises:
        UserError: the file holds fewer.
    """
    return reader.seen_as(settings.input, settings.k, whole=settings.start == "joint")


def check_fits(run: Run, reader: RegionReader) -> None:
    """Raises UserError when a run was trained on regions of another width, or of another space."""
    if reader.dim != run.region_dim:
        raise UserError(
            f"{run.path} was trained on regions of {run.region_dim} numbers, {reader.file.path} "
            f"has {reader.dim}: extract with the same detector, {run.detector.get('name', '?')}"
        )
    if run.settings.joint or run.settings.untrained:
        was, now = (_space(detector) for detector in (run.detector, reader.file.detector))
        if was != now:
            raise UserError(
                f"{run.path} is of another space of pictures than {reader.file.path}: extract "
                f"with the model that it is of, {run.detector.get('config')}, or make a run of "
                f"these features with `cqr search --features {reader.file.path}`"
            )


def _space(detector: Mapping[str, Any]) -> object:
    """What two sets of features must have alike to be compared without learning."""
    return (detector.get("joint") or detector).get("id", detector)
