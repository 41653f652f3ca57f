"""A run: the folder that a training writes and everything later reads.

run.json              what was trained, on what, with which settings and words
weights.safetensors   the chosen weights
checkpoint.safetensors  all that resuming needs
log.jsonl             a line an epoch
evaluation/           what `cqr evaluate` writes; evaluation-NAME/ for other data sets
submission/           what `cqr submit` writes
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file

import cqr
from cqr.atomic import replacing
from cqr.errors import UserError, reason, scarcity
from cqr.trainer.models import ALL, build
from cqr.trainer.models.from_joint import FromJoint
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.models.learners import Learners
from cqr.trainer.models.snr import SNR
from cqr.trainer.models.zero_shot import ZeroShot, ZeroShotConfig, composition
from cqr.trainer.text import tower
from cqr.trainer.text.encoder import Identity, TextEncoder, load
from cqr.trainer.text.joint import Joint
from cqr.trainer.text.tower import Silent, Tower
from cqr.trainer.text.vocabulary import TextReader, Vocabulary
from cqr.trainer.training.settings import Settings
from cqr.typed import built, parsed

FORMAT, VERSION = "cqr-run", 1
RUNS = Path("artifacts/runs")
EVALUATION = "evaluation"
RETIRED = ("orderless",)
"""Options of models that runs of before name, and that no trained model knew of."""


@dataclass(frozen=True)
class Run:
    """What run.json says.

    Attributes:
        path: the folder.
        features: as given to the training, but absolute.
        data: as given to the training.
        dataset: name of the data set; "" where there was none.
        protocol: what was chosen among the data set's options.
        region_dim: width of a region's feature.
        detector: identity of the detector behind the features; its `joint` is the space that
            they share with texts.
        vocabulary: of the training texts; None where a text encoder reads them, or nothing.
        text_encoder: that one, or the text tower of the joint space.
        created: ISO 8601, UTC.
    """

    path: Path
    features: Path
    data: Path | None
    dataset: str
    protocol: dict[str, Any]
    region_dim: int
    detector: dict[str, Any]
    settings: Settings
    vocabulary: Vocabulary | None
    text_encoder: Identity | None
    created: str

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def evaluation(self, dataset: str | None = None, choices: Mapping[str, Any] = {}) -> Path:
        """Where the results on a data set are kept, its own if none is named.

        Args:
            choices: of its protocol, those that are not what is usual with the run.
        """
        own = dataset is None or dataset == self.dataset
        parts = [EVALUATION, *([] if own else [dataset]), *(f"{n}={v}" for n, v in choices.items())]
        name = "-".join(re.sub(r"[^\w.,=+-]+", "_", str(part)) for part in parts)
        return self.path / name[:200]

    @property
    def reads_nothing(self) -> bool:
        """Whether its questions are pictures alone."""
        return self.vocabulary is None and self.text_encoder is None

    def history(self) -> list[dict[str, Any]]:
        """The lines of the log, one an epoch; none before the first has ended.

        Raises:
            UserError: it is damaged.
        """
        if not self.log.exists():
            return []
        found = []
        for number, line in enumerate(self.log.read_bytes().splitlines(), 1):
            try:
                found.append(_epoch(parsed(line)))
            except ValueError as error:
                raise UserError(
                    f"{self.log} is damaged in line {number} ({error}): delete it; nothing but the "
                    "curves of the training is lost"
                ) from error
        return found

    def model(self) -> RetrievalModel:
        """The model, freshly initialised, and what the settings put around it."""
        settings, dim = self.settings, self.region_dim
        options = dict(settings.options)
        if settings.learners > 1:
            options["embed_dim"] //= settings.learners
        model = build(settings.model, options, region_dim=dim, text=self._text.spec)
        if settings.learners > 1:
            model = Learners(
                model,
                region_dim=dim,
                learners=settings.learners,
                divergence=settings.divergence,
                margin=settings.divergence_margin,
            )
        if settings.snr:
            model = SNR(
                model,
                region_dim=dim,
                causality=settings.causality,
                distance=settings.causality_distance,
            )
        if settings.start == "joint":
            wide = options.get("embed_dim") or options["width"]
            compose = ZeroShotConfig(composition(Joint.of(self.detector)))
            model = FromJoint(model, embed_dim=wide, start=ZeroShot(region_dim=dim, config=compose))
        model.reference_weight = settings.reference_weight
        return model

    @property
    def _text(self) -> Vocabulary | Identity | Silent:
        return self.vocabulary or self.text_encoder or self._silent

    @property
    def _silent(self) -> Silent:
        return Silent(
            f"{self.path} finds pictures by likeness alone, since {self.features} shares no space "
            "with texts: leave the text out, extract the pictures with a detector that has such a "
            "space (--detector open_clip or transformers), or train a model on queries"
        )

    def words(self, device: torch.device | None = None) -> TextReader:
        """What reads the run's texts.

        Args:
            device: where a text encoder computes from now on; None for where it did,
                at first the CPU.

        Raises:
            UserError: the run's text encoder cannot be had, or is another by now.
        """
        text = self._text
        if not isinstance(text, Identity):
            return text
        encoder: TextEncoder | Tower
        if self.settings.joint:
            encoder = tower.load(joint_of(self.detector, self.features).moved_to(text.name))
        else:
            encoder = load(text.name, text.max_words)
        text.require(encoder.identity)
        return encoder if device is None else encoder.to(device)

    def with_text_encoder(self, name: str) -> Self:
        """This run, with its text encoder to be found under another name.

        Raises:
            UserError: it has none.
        """
        if self.text_encoder is None:
            raise UserError(
                f"--text-encoder {name}: {self.path} was trained without one; leave it out"
            )
        return replace(self, text_encoder=replace(self.text_encoder, name=name))

    def trained_model(self) -> RetrievalModel:
        """The model with the chosen weights, in evaluation mode.

        Raises:
            UserError: there are none, or they do not fit.
        """
        if not self.weights.exists():
            raise UserError(
                f"{self.path} has no weights yet: let `cqr train` finish an epoch, "
                "or choose another run with --run"
            )
        try:
            model = self.model()
            model.load_state_dict(load_file(self.weights))
        except UserError:
            raise
        except Exception as error:
            if why := scarcity(error):
                raise UserError(f"cannot read {self.weights}: {why}") from error
            raise UserError(
                f"cannot use {self.weights} ({reason(error)}): train the run again"
            ) from error
        return model.eval()

    def save(self) -> None:
        content = asdict(self) | {"format": FORMAT, "version": VERSION, "cqr": cqr.__version__}
        del content["path"]
        with replacing(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Raises UserError when there is no such run, or it is of another version."""
        path = Path(path)
        file = path / "run.json"
        if not file.is_file():
            raise UserError(f"{path} is not a run (it has no run.json): see {path.parent} for runs")
        try:
            content = parsed(file.read_bytes())
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise UserError(
                    f"{file} is {repr(content['format'])[:50]} version "
                    f"{repr(content['version'])[:50]}, this cqr "
                    f"reads {FORMAT!r} version {VERSION}: update cqr or train again"
                )
            words, encoder = content["vocabulary"], content.get("text_encoder")
            return cls(
                path=path,
                features=Path(content["features"]),
                data=Path(content["data"]) if content["data"] else None,
                dataset=_is(content, "dataset", str),
                protocol=_is({"protocol": {}, **content}, "protocol", dict),
                region_dim=_is(content, "region_dim", int),
                detector=_is(content, "detector", dict),
                settings=_settings(content["settings"]),
                vocabulary=built(Vocabulary, words) if words else None,
                text_encoder=built(Identity, encoder) if encoder else None,
                created=_is(content, "created", str),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file} is damaged ({repr(error)[:200]}): choose another run with --run"
            ) from error
        except OSError as error:
            why = scarcity(error) or f"{reason(error)}: choose another run with --run"
            raise UserError(f"cannot read {file}: {why}") from error


def _is(content: dict[str, Any], name: str, kind: type) -> Any:
    """A value of run.json.  Raises ValueError where it is of another type."""
    value = content[name]
    if type(value) is not kind or (isinstance(value, int) and value < 1):
        raise ValueError(f"{name} is {str(value)[:50]!r}")
    return value


def _settings(content: Any) -> Settings:
    try:
        options = {k: v for k, v in content["options"].items() if k not in RETIRED}
        settings = built(Settings, content | {"options": options})
        built(ALL[settings.model].config, settings.options)
        return settings
    except UserError as error:  # they say what is wrong in words of the command line
        raise ValueError(str(error)) from error


def _epoch(line: Any) -> dict[str, Any]:
    """A line of the log.  Raises ValueError where it is none."""
    if not isinstance(line, dict) or type(line.get("epoch")) is not int:
        raise ValueError("no epoch")
    numbers = {name: value for name, value in line.items() if name.endswith(("loss", "seconds"))}
    numbers |= line["recall"] if isinstance(line.get("recall"), dict) else {}
    trained = {"loss": None, "seconds": None} if line["epoch"] else {}  # 0 is the start
    for name, value in {**trained, **numbers}.items():
        if type(value) not in (int, float):
            raise ValueError(f"{name} is no number")
    return line


def joint_of(detector: Mapping[str, Any], features: Path) -> Joint:
    """The space that features share with texts.

    Raises:
        UserError: there is none.
    """
    joint = Joint.of(detector)
    if joint is None:
        raise UserError(
            f"{features} shares no space with texts (its pictures were seen by "
            f"{detector.get('name', '?')}): extract them with a detector that has one "
            "(--detector open_clip or transformers)"
        )
    return joint


def all_runs(folder: Path = RUNS) -> list[Run]:
    """Every run in a folder, the oldest first."""
    found = [Run.load(file.parent) for file in folder.glob("*/run.json")]
    return sorted(found, key=lambda run: (run.created, run.path.name))


def newest(folder: Path = RUNS) -> Run:
    """Raises UserError when nothing was trained yet."""
    runs = all_runs(folder)
    if not runs:
        raise UserError(
            f"there is no run in {folder} yet: train one with `cqr train --features FILE`"
        )
    return runs[-1]


def chosen(run: Run | str | Path | None, text_encoder: str | None = None) -> Run:
    """A run by itself or by its folder; None is the newest.

    Args:
        text_encoder: where the run's text encoder lies now, if it was moved.

    Raises:
        UserError: there is no such run, or it has no text encoder.
    """
    found = newest() if run is None else run if isinstance(run, Run) else Run.load(run)
    return found.with_text_encoder(text_encoder) if text_encoder else found


def now() -> str:
    return datetime.now(UTC).isoformat()


def next_path(folder: Path, stem: str) -> Path:
    """The first free folder/stem-NNN."""
    taken = {path.name for path in folder.glob(f"{stem}-*")}
    return next(folder / name for i in range(1, 10**6) if (name := f"{stem}-{i:03d}") not in taken)
