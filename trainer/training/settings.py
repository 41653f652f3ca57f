"""What decides a training, apart from the data and the model's own options."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from cqr.errors import UserError
from cqr.trainer.features import Input
from cqr.trainer.models import MODELS, options_of
from cqr.trainer.models.snr import Distance
from cqr.trainer.training.losses import LOSSES, Kappa

Select = Literal["validation", "test", "last"]


@dataclass(frozen=True)
class Settings:
    """Everything that a training's result depends on, besides the data.

    Attributes:
        model: its name.
        options: the model's own choices, all of them.
        input: what the model is given of an image; `settle` fills in the model's own.
        k: regions of each image that are read; None for all.
        learners: how many share the model and its embed_dim, see `models.learners`; 1 is
            the model itself.
        divergence: weight of the loss that keeps the learners apart.  Ours.
        divergence_margin: squared distance beyond which they are apart enough.  Ours.
        snr: whether the features are normalised and restituted first, see `models.snr`.
        causality: weight of each of its two losses.  Ours.
        causality_distance: d in them.  Ours.
        text_encoder: the pretrained one that reads the texts, as for
            `pretrained.find`; None for a vocabulary of the training texts.
        max_words: of a text that are read (an encoder's word pieces); longer
            texts are cut, and counted.
        loss: a name in `losses.LOSSES`.
        kappa: the similarity inside the loss.
        epochs: passes over the training queries.
        batch: queries a step, over all devices.
        together: queries of one reference that meet in a batch, where training
            queries are a list; see `pairs.Listed`.
        lr: peak learning rate of AdamW; warmed up linearly, then cosine to 0.
        warmup: steps until the peak, at most a tenth of all.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        seed: of everything random.
        validation: share of the training references held out to choose the epoch.
        select: which epoch's weights are kept: the best on the held-out queries,
            the best on the test queries (TIRG's habit: flatters), or the last.
    """

    model: str = "lbf"
    options: dict[str, Any] = field(default_factory=dict)
    input: Input = "regions"
    k: int | None = None
    learners: int = 1
    divergence: float = 1.0
    divergence_margin: float = 1.0
    snr: bool = False
    causality: float = 0.1
    causality_distance: Distance = "half-cosine"
    text_encoder: str | None = None
    max_words: int = 32
    loss: str = "batch-classification"
    kappa: Kappa = "dot"
    epochs: int = 20
    batch: int = 128
    together: int = 1
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    validation: float = 0.05
    select: Select = "validation"

    def __post_init__(self) -> None:
        least_of = {
            "epochs": 1, "batch": 2, "together": 1, "warmup": 1, "max_words": 1, "learners": 1
        }  # fmt: skip
        least_of |= dict.fromkeys(("divergence", "divergence_margin", "causality"), 0)
        for name, least in least_of.items():
            if not getattr(self, name) >= least:
                raise UserError(f"{_flag(name)} {getattr(self, name)} is less than {least}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"--seed {self.seed} is not in [0, 2^31)")
        if not self.lr > 0:
            raise UserError(f"--lr {self.lr} is not greater than 0")
        if not 0 <= self.validation < 1:
            raise UserError(f"--validation {self.validation} is not in [0, 1)")
        literals = {
            "input": Input, "kappa": Kappa, "select": Select, "causality_distance": Distance
        }  # fmt: skip
        for name, choices in ((name, get_args(kind)) for name, kind in literals.items()):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"{_flag(name)} {getattr(self, name)} is not one of {', '.join(choices)}"
                )
        if self.loss not in LOSSES:
            raise UserError(f"no loss is called {self.loss!r}; there are {', '.join(LOSSES)}")
        width = self.options.get("embed_dim", 0)
        if self.learners > 1 and (not width or width % self.learners):
            raise UserError(
                f"--learners {self.learners} cannot share vectors of embed_dim={width} evenly: "
                "give --set embed_dim=N that is a multiple of it, or other --learners"
            )
        if self.snr and (self.input == "whole" or self.k == 1):
            raise UserError(
                "--snr normalises over the regions of an image, and here it has only one: "
                "give --input regions, and a --k of 2 or more"
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
    known = {f.name for f in fields(Settings)}
    chosen = {name: value for name, value in recommended.items() if name in known}
    chosen |= {name: value for name, value in given.items() if value is not None}
    model = chosen.get("model", Settings.model)
    own = options_of(model, recommended, options)
    return Settings(**{"input": MODELS[model].input, **chosen}, options=own)
