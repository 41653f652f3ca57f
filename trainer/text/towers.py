"""Text towers of two libraries, read from their files: safely, in float32, frozen."""

import contextlib
import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cqr.errors import UserError, reason
from cqr.trainer.text import pretrained
from cqr.trainer.text.joint import Joint, check, folder_of


@dataclass(frozen=True)
class Said:
    """What a tower says of one text.

    Attributes:
        vector: E, where the pictures are.
        states: N x T, the last layer's of its word pieces; of the marks around them if it has
            none.
        empty: whether it has none.
    """

    vector: Tensor
    states: Tensor
    empty: bool


class Net(Protocol):
    """A text tower.

    Attributes:
        network: what computes.
        pieces: word pieces of a text that are read.
        temperature: by which the model multiplies cosines; None where it does not say.
        versions: of the libraries behind it.
    """

    network: nn.Module
    pieces: int
    temperature: float | None
    versions: tuple[str, ...]

    def ids(self, text: str) -> list[int]:
        """All of a text's word pieces, without marks."""
        ...

    def shown(self, piece: int) -> str: ...

    def say(self, text: str) -> Said: ...


def read(joint: Joint) -> Net:
    """The tower of a space, its files held against the features.

    Raises:
        UserError: the library is not installed or not known, or files are missing, are others,
            or cannot be read.
    """
    kinds: dict[str, Any] = {"transformers": Transformers, "open_clip": OpenClip}
    if joint.library not in kinds:
        raise UserError(
            f"the text tower {joint.name} is of the library {joint.library!r}, which this cqr "
            f"does not read; it reads {' and '.join(kinds)}: update cqr"
        )
    library = _library(joint.library, joint.name)
    try:
        with torch.random.fork_rng(devices=[]), _quietly():
            net: Net = kinds[joint.library](joint, library)
    except UserError:
        raise
    except Exception as error:  # readers of others' files raise whatever they meet
        raise UserError(
            f"the text tower {joint.name} cannot be read ({reason(error)}): bring its files back, "
            "or extract the pictures again"
        ) from error
    net.network.eval().requires_grad_(False)
    return net


def _library(name: str, model: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"the text tower {model} needs {name}, which is not installed: "
            "pip install 'cqr[vision]'"
        ) from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """open_clip tells the root logger of random weights that are about to be replaced."""
    handlers = list(logging.getLogger().handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        logging.getLogger().handlers[:] = handlers


TRANSFORMERS = {
    "clip": "CLIPTextModelWithProjection",
    "metaclip_2": "MetaClip2TextModelWithProjection",
    "siglip": "SiglipTextModel",
    "siglip2": "Siglip2TextModel",
}
"""The library's text towers, by a model's `model_type`."""


class Transformers:
    """CLIP's and SigLIP's, from a folder as `save_pretrained` leaves it."""

    versions = ("tokenizers", "torch", "transformers")

    def __init__(self, joint: Joint, library: Any) -> None:
        folder = folder_of(joint, joint.model)
        wanted = {**joint.weights, **joint.tokenizer}
        check(joint, {name: folder / name for name in wanted}, wanted)
        self.temperature = _temperature([folder / name for name in joint.weights])
        closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with pretrained.quietly(library):
            whole = library.AutoConfig.from_pretrained(folder, **closed)
            if whole.model_type not in TRANSFORMERS:
                raise UserError(
                    f"the text tower {joint.name} is of a {whole.model_type}; those of "
                    f"{', '.join(TRANSFORMERS)} can be used"
                )
            config = whole.text_config
            if hasattr(whole, "projection_dim"):  # the text's own may be another, unused number
                config.projection_dim = whole.projection_dim
            self.network, found = getattr(library, TRANSFORMERS[whole.model_type]).from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=any(name.endswith(".safetensors") for name in joint.weights),
                dtype=torch.float32,
                output_loading_info=True,
            )
            self._tokenizer = library.AutoTokenizer.from_pretrained(folder, **closed)
        if lacking := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
            raise UserError(
                f"the weights of the text tower {joint.name} are not whole: {len(lacking)} tensors "
                f"do not fit ({lacking[0]}); get the model again"
            )
        self._padded = whole.model_type.startswith("siglip")
        self._context = joint.context
        self.pieces = joint.context - self._tokenizer.num_special_tokens_to_add()

    def ids(self, text: str) -> list[int]:
        read = self._tokenizer(text, add_special_tokens=False, verbose=False)
        return list(read["input_ids"])

    def shown(self, piece: int) -> str:
        return str(self._tokenizer.decode([piece]))

    def say(self, text: str) -> Said:
        read = self._tokenizer(
            text,
            truncation=True,
            max_length=self._context,
            padding="max_length" if self._padded else False,
            return_special_tokens_mask=True,
        )
        ids = torch.tensor([read["input_ids"]], device=next(self.network.parameters()).device)
        out = self.network(input_ids=ids)
        vector = out.pooler_output if self._padded else out.text_embeds
        words = ~torch.tensor(read["special_tokens_mask"], dtype=torch.bool)
        return _said(vector[0], out.last_hidden_state[0], words)


class OpenClip:
    """open_clip's own text transformers."""

    versions = ("open_clip_torch", "torch")

    def __init__(self, joint: Joint, library: Any) -> None:
        name, folder, quick = self._place(joint, library)
        (weights,) = joint.weights
        files = {n: folder / n for n in joint.tokenizer}
        files[weights] = Path(joint.file) if joint.file else folder / weights
        check(joint, files, {**joint.weights, **joint.tokenizer})
        whole = library.create_model(
            name, load_weights=False, pretrained_text=False, force_quick_gelu=quick
        )
        library.load_checkpoint(whole, str(files[weights]), weights_only=True)
        self._final: Any = getattr(whole, "ln_final", None) or getattr(
            getattr(whole, "text", None), "ln_final", None
        )
        if self._final is None:
            raise UserError(
                f"the text tower {joint.name} is not one of open_clip's own transformers, which "
                "alone can be used: extract with another model"
            )
        self.temperature = whole.logit_scale.exp().item()
        whole.visual = None
        self.network = whole
        self._tokenizer = library.get_tokenizer(name, context_length=joint.context)
        own = getattr(self._tokenizer, "tokenizer", None)  # of a HFTokenizer
        self._marks = set(own.all_special_ids) if own else set(self._tokenizer.all_special_ids)
        self._own = own
        # what is left of the context beside the marks around a text
        self.pieces = joint.context - (2 if own is None else own.num_special_tokens_to_add())

    @staticmethod
    def _place(joint: Joint, library: Any) -> tuple[str, Path, bool]:
        """open_clip's name, the folder of the model's files, whether it has QuickGELU."""
        architecture, _, tag = joint.model.partition("/")
        if architecture not in library.list_models():
            folder = folder_of(joint, joint.model)
            return f"local-dir:{folder}", folder, False
        if joint.file:
            return architecture, Path(joint.file).parent, False
        published = library.get_pretrained_cfg(architecture, tag) or {}
        repository = published.get("hf_hub", "").rpartition("/")[0]
        folder = folder_of(joint, repository or joint.model)
        return architecture, folder, bool(published.get("quick_gelu", False))

    def ids(self, text: str) -> list[int]:
        if self._own is not None:
            return list(self._own(text, add_special_tokens=False, verbose=False)["input_ids"])
        return list(self._tokenizer.encode(text))

    def shown(self, piece: int) -> str:
        return str((self._own or self._tokenizer).decode([piece])).strip()

    def say(self, text: str) -> Said:
        ids = self._tokenizer([text])
        caught: list[Tensor] = []
        hook = self._final.register_forward_hook(lambda _, __, out: caught.append(out))
        try:
            device = next(self.network.parameters()).device
            vector = self.network.encode_text(ids.to(device))[0]
        finally:
            hook.remove()
        words = torch.tensor([i not in self._marks for i in ids[0].tolist()])
        if self._own is None:  # the padding, 0, is a word piece too: "!"
            words[len(self.ids(text)[: self.pieces]) + 1 :] = False
        return _said(vector, caught[0][0, : len(words)], words)


def _said(vector: Tensor, states: Tensor, words: Tensor) -> Said:
    words = words.to(states.device)
    kept = states[words] if words.any() else states[:1]
    return Said(vector.float().cpu(), kept.float().cpu(), not bool(words.any()))


def _temperature(files: list[Path]) -> float | None:
    """exp(logit_scale), if the weights are safetensors that hold one."""
    from safetensors import safe_open

    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as content:
                if "logit_scale" in content.keys():  # noqa: SIM118, it is no dict
                    return float(content.get_tensor("logit_scale").float().exp())
    return None
