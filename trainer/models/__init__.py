"""One interface; LBF and what goes around any model here, its peers in `peers`, one file a paper.

A model is an `interface.RetrievalModel` and a frozen dataclass of its choices.
To add one, write its file and a line in `MODELS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cqr.errors import UserError
from cqr.trainer.choices import Input
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.models.lbf import LBF
from cqr.trainer.models.lbf_config import LBFConfig
from cqr.trainer.models.likeness import Likeness
from cqr.trainer.models.peers.clvc_net import CLVCNet, CLVCNetConfig
from cqr.trainer.models.peers.combiner import Combiner, CombinerConfig
from cqr.trainer.models.peers.compose_ae import ComposeAE, ComposeAEConfig
from cqr.trainer.models.peers.concatenation import Concatenation, ConcatenationConfig
from cqr.trainer.models.peers.cosmo import CoSMo, CoSMoConfig
from cqr.trainer.models.peers.deepset import DeepSet, DeepSetConfig
from cqr.trainer.models.peers.film import FiLM, FiLMConfig
from cqr.trainer.models.peers.image_only import ImageOnly
from cqr.trainer.models.peers.maaf import MAAF, MAAFConfig
from cqr.trainer.models.peers.mrn import MRN, MRNConfig
from cqr.trainer.models.peers.parameter_hashing import ParameterHashing, ParameterHashingConfig
from cqr.trainer.models.peers.relationship import Relationship, RelationshipConfig
from cqr.trainer.models.peers.show_and_tell import ShowAndTell
from cqr.trainer.models.peers.text_only import TextOnly
from cqr.trainer.models.peers.tirg import TIRG, TIRGConfig
from cqr.trainer.models.peers.val import VAL, VALConfig
from cqr.trainer.models.whole import ImageConfig, WholeConfig
from cqr.trainer.models.zero_shot import ZeroShot, ZeroShotConfig
from cqr.trainer.options import choose
from cqr.trainer.text.vocabulary import TextSpec


class Model(NamedTuple):
    """A model of a paper.

    Attributes:
        kind: its class.
        config: a dataclass of its choices.
        input: what its paper gives it of an image.
    """

    kind: Any
    config: Any
    input: Input


MODELS = {
    "lbf": Model(LBF, LBFConfig, "regions"),
    "image-only": Model(ImageOnly, ImageConfig, "whole"),
    "text-only": Model(TextOnly, WholeConfig, "whole"),
    "concatenation": Model(Concatenation, ConcatenationConfig, "whole"),
    "show-and-tell": Model(ShowAndTell, WholeConfig, "whole"),
    "parameter-hashing": Model(ParameterHashing, ParameterHashingConfig, "whole"),
    "relationship": Model(Relationship, RelationshipConfig, "regions"),
    "film": Model(FiLM, FiLMConfig, "regions"),
    "mrn": Model(MRN, MRNConfig, "whole"),
    "tirg": Model(TIRG, TIRGConfig, "whole"),
    "compose-ae": Model(ComposeAE, ComposeAEConfig, "whole"),
    "combiner": Model(Combiner, CombinerConfig, "whole"),
    "maaf": Model(MAAF, MAAFConfig, "regions"),
    "deepset": Model(DeepSet, DeepSetConfig, "regions"),
    "cosmo": Model(CoSMo, CoSMoConfig, "regions"),
    "val": Model(VAL, VALConfig, "regions"),
    "clvc-net": Model(CLVCNet, CLVCNetConfig, "regions"),
}


@dataclass(frozen=True)
class NoConfig:
    """A model without choices."""


UNTRAINED = {
    "likeness": Model(Likeness, NoConfig, "whole"),
    "zero-shot": Model(ZeroShot, ZeroShotConfig, "whole"),
}
"""Models whose weights are measured on the features; see `training.untrained`."""

ALL = {**MODELS, **UNTRAINED}


def build(
    name: str, options: Mapping[str, Any], *, region_dim: int, text: TextSpec
) -> RetrievalModel:
    """A model of that name, freshly initialised from torch's random state."""
    model = ALL[name]
    try:
        built: RetrievalModel = model.kind(
            region_dim=region_dim, text=text, config=model.config(**options)
        )
        return built
    except ValueError as error:
        raise UserError(f"{name} cannot be built: {error}; change it with --set") from error


def options_of(name: str, recommended: Mapping[str, Any], given: list[str]) -> dict[str, Any]:
    """Every option of a model: its defaults, then what is recommended, then `given`.

    What a data set recommends is of LBF and its encoders, so a peer has it only where it
    stands on these.

    Args:
        given: "NAME=VALUE" each, as typed on the command line.

    Raises:
        UserError: no such model or option, or a value that it does not take.
    """
    if name not in ALL:
        raise UserError(f"no model is called {name!r}; there are {', '.join(ALL)}")
    config = ALL[name].config
    plain = choose("--set", name, config, {}, given)
    if plain.get("encoder") == "linear":
        return plain
    return choose("--set", name, config, recommended, given)
