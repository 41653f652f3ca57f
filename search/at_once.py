"""What answers for a feature file: a run that was trained on it, or one that needs no training."""

from collections.abc import Callable
from pathlib import Path

from cqr.errors import UserError
from cqr.search.gallery import NAME, folder_of
from cqr.trainer.features import RegionReader
from cqr.trainer.text.joint import Joint
from cqr.trainer.training import runs
from cqr.trainer.training.fitting import check_fits
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import settle

FEATURES = Path("artifacts")
"""Where `cqr extract` leaves feature files."""


def run_for(
    run: Run | str | Path | None,
    features: Path | None,
    text_encoder: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    """The run that is asked for; where none is named, one that answers for the features.

    That is the newest of these features.  If there is none and they share a space with texts, a
    run of `zero-shot` is made.  Else the newest of all is taken, if it fits; else a run of
    `likeness` is made.

    Args:
        features: None is those of the newest run; without any run, the newest feature file.
        text_encoder: where the run's text encoder lies now, if it was moved.
        say: is told, in a line, of a run that is made.

    Raises:
        UserError: there is no such run, there are no features, or the text tower of the
            features cannot be had.
    """
    if run is not None:
        return runs.chosen(run, text_encoder)
    there = [one for one in runs.all_runs() if one.weights.exists()]
    if features is None and (there or runs.all_runs()):
        return runs.chosen(None, text_encoder)
    features = features or _newest_features()
    reader = RegionReader(features)
    fitting = [one for one in there if _fits(one, reader)]
    own = [one for one in fitting if one.features == features.resolve()]
    joint = Joint.of(reader.file.detector)
    if own or (fitting and joint is None):
        return runs.chosen((own or fitting)[-1], text_encoder)
    from cqr.trainer.training.start import make  # and with it all readers of data sets

    name = "likeness" if joint is None else "zero-shot"
    settings = settle({}, {"model": name, "text_encoder": text_encoder if joint else None}, [])
    made = make(features, settings, device)
    can = "pictures and texts" if joint else "likeness alone"
    say(f"Made {made.path}, which is not trained: questions of {can} (`cqr train` learns more)")
    return made


def lacks_index(run: Run, features: Path | None) -> bool:
    """Whether no gallery was encoded by a run yet, which a search does by the way."""
    return not (folder_of(run, features or run.features) / NAME).exists()


def _newest_features() -> Path:
    files = sorted(FEATURES.glob("*.h5"), key=lambda file: (file.stat().st_mtime, file.name))
    if not files:
        raise UserError(
            f"there is no run in {runs.RUNS} yet, and no feature file in {FEATURES}: extract "
            "pictures with `cqr extract --images DIR`, or name a file with --features"
        )
    return files[-1]


def _fits(run: Run, reader: RegionReader) -> bool:
    try:
        check_fits(run, reader)
    except UserError:
        return False
    return True
