"""One file a backend.  A detector turns pictures into exactly K regions each."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.machine import find_device
from cqr.pipeline.regions import Regions
from cqr.typed import parsed

if TYPE_CHECKING:  # torch is heavy, and this package is imported for its names alone
    import torch

    from cqr.pipeline.detectors.regional import Backend

Picture = NDArray[np.uint8]
"""An upright RGB picture, H x W x 3."""

FINDERS = ("detectron2", "torchvision", "bundled", "grid")
"""Each is a module of this package with `backend(config, weights, device) -> Backend`."""

BACKBONES = ("open_clip", "timm", "transformers")
"""Each is a module of this package with `encoder(request) -> Encoder`; they find no boxes."""

NAMES = FINDERS + BACKBONES


class Detector(Protocol):
    """What stage one needs of a detector.

    Attributes:
        dim: D, the width of a region's feature.
        max_k: the largest K that it can give.
        identity: what decides its numbers: name, configuration, selection,
            library and version, sha256 of the weights.  JSON-able; two
            detectors with equal identities are equal.
    """

    dim: int
    max_k: int
    identity: dict[str, Any]

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) at which the network sees a picture of that size.

        Pictures of one network size may share a batch: nothing is padded for
        the others' sake, so a batch changes no number beyond rounding (which may
        swap two rows of the same score).
        """
        ...

    def fraction(self, width: int, height: int) -> int:
        """At which 1/n of its size a JPEG may be decoded for it: see `images.Fraction`."""
        ...

    def check_k(self, k: int) -> None:
        """Raise UserError unless this detector can give k regions."""
        ...

    @property
    def prepare(self) -> "Callable[[Picture], torch.Tensor] | None":
        """What may be done to a picture before it meets others, in any thread; None: nothing."""
        ...

    def __call__(
        self,
        pictures: list[Picture],
        k: int,
        prepared: "Sequence[torch.Tensor] | None" = None,
    ) -> list[Regions]:
        """Exactly k regions for each picture.

        Args:
            prepared: what `prepare` made of each, where there is such a thing.

        Raises:
            UserError: k is out of range.
            ValueError: the pictures differ in network size.
        """
        ...


@dataclass(frozen=True)
class DetectorSpec:
    """A detector by name, before anything heavy is loaded; can be sent to another process.

    Attributes:
        name: one of NAMES.
        config: which of the backend's networks; None is its default.
        weights: a file of weights, or a backbone's folder; None is the backend's own.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        regions: of a backbone: one of `backbones.regions.KINDS`; None is cells.
        finder: of a backbone: the detector whose boxes it describes, on its device.
        accept_licence: use a backbone whatever licence it is under.
        runtime: what computes the network: one of `runtimes.RUNTIMES`.
        scaled: decode large JPEGs at a fraction of their size, where the detector admits it.
    """

    name: str
    config: str | None = None
    weights: Path | None = None
    device: str = "auto"
    regions: str | None = None
    finder: "DetectorSpec | None" = None
    accept_licence: bool = False
    runtime: str = "torch"
    scaled: bool = True

    @classmethod
    def of(
        cls,
        identity: Mapping[str, Any],
        weights: Path | None = None,
        device: str = "auto",
        finder_weights: Path | None = None,
    ) -> Self:
        """The detector of an identity, as a feature file records it.  Its licence was accepted.

        It runs by torch, whichever runtime the file names: the others may be absent, and take
        longer to load than a few pictures take.
        """
        finder = identity.get("finder")
        return cls(
            identity["name"],
            identity.get("config"),
            weights,
            device,
            regions=identity.get("regions"),
            finder=cls.of(finder, finder_weights, device) if finder else None,
            accept_licence=True,
            scaled="jpeg" in identity,
        )

    def load(self) -> Detector:
        """Load it.

        Raises:
            UserError: an unknown name or config, weights that cannot be had, a runtime that is
                absent or not for this detector.
        """
        from cqr.pipeline.detectors import runtimes

        detector = self._on_torch()
        runtimes.run_by(self.runtime, detector)
        return detector

    def _on_torch(self) -> Detector:
        from cqr.pipeline.detectors.regional import RegionDetector

        device = find_device(self.device)
        if self.name in BACKBONES:
            return self._described(device)
        if self.regions or self.finder:
            raise UserError(
                f"{self.name} describes its own boxes; --regions and --finder need one of"
                f" --detector {', '.join(BACKBONES)}"
            )
        made = backend(self.name, self.config, self.weights, device)
        return RegionDetector(made, scaled=self.scaled)

    def _described(self, device: "torch.device") -> Detector:
        from cqr.pipeline.detectors.backbones import regions, source

        if self.config is None:
            raise UserError(
                f"--detector {self.name} needs --config NAME: the name of a model on the hub, or "
                "a folder; docs/backbones.md has some"
            )
        finder = None
        if self.finder is not None:
            of = self.finder
            finder = backend(of.name, of.config, of.weights, device)
        request = source.parse(self.config, self.weights, device, self.accept_licence)
        module = import_module(f"cqr.pipeline.detectors.{self.name}")
        return regions.detector(module.encoder(request), self.regions or "cells", finder)


@dataclass(frozen=True)
class Choice:
    """What `choose` came to.

    Attributes:
        spec: the detector.
        reason: why, to be printed and recorded.
        warning: set when this is less than what was looked for, in three lines: what is so,
            what it means for results, and the one command that mends it.
        tried: what was looked for, and why it could not be had.
    """

    spec: DetectorSpec
    reason: str
    warning: str | None = None
    tried: tuple[str, ...] = ()


def choose(folder: Path, device: str = "auto") -> Choice:
    """The best detector that can run here and now on the pictures of a folder.

    Generated scenes (`cqr scenes` leaves a scenes.json) get the bundled detector;
    other pictures a joint backbone, which texts can be asked of (`backbones.choice`),
    else detectron2, else torchvision, if their weights are at hand or can be
    downloaded; else a grid, with a warning.  Takes seconds at most, even where no
    name can be looked up.
    """
    if scenes := _scenes(folder):
        path, layout = scenes
        crowd, kind = ("crowd", "crowds") if layout == "crowd" else (None, "scenes")
        spec = DetectorSpec("bundled", crowd, device=device)
        return Choice(spec, f"{path} says generated {kind}")
    from cqr.pipeline.detectors.backbones import choice

    joint = choice.joint()
    if not isinstance(joint, str):
        found, reason = joint
        return Choice(DetectorSpec(found.detector, found.config, device=device), reason)
    objects, tried = _objects(device)
    if objects is not None:
        spec, reason = objects
        return Choice(spec, f"{reason}; without texts: {joint}")
    return Choice(
        DetectorSpec("grid", device=device),
        "no object detector can be had here",
        "The regions are cells of a fixed grid, not objects, and they share no space with texts.\n"
        "Likeness works; texts need a training, and find less than with objects.\n"
        f"Better: cqr extract --images {shlex.quote(str(folder))} --config FOLDER --overwrite, the "
        "FOLDER of a CLIP model (or --detector torchvision --weights FILE)",
        (joint, *tried),
    )


def _objects(device: str) -> tuple[tuple[DetectorSpec, str] | None, list[str]]:
    """The detector of objects that can be had, and why; and what was tried before it."""
    from cqr.pipeline.detectors import detectron2, torchvision
    from cqr.pipeline.detectors.download import reachable

    tried: list[str] = []
    for name, module in (("detectron2", detectron2), ("torchvision", torchvision)):
        if name == "detectron2" and (problem := detectron2.problem()):
            tried.append(problem)
            continue
        source = module.source(None)
        if source.path.is_file():
            return (DetectorSpec(name, device=device), f"its weights are in {source.path}"), tried
        if reachable(source.url):
            return (DetectorSpec(name, device=device), f"its weights are at {source.url}"), tried
        tried.append(
            f"{name}'s weights are not in {source.path.parent} and {source.url} cannot be reached"
        )
    return None, tried


def asked(
    name: str,
    config: str | None,
    weights: Path | None,
    device: str,
    regions: str | None = None,
    finder: str | None = None,
    finder_weights: Path | None = None,
    accept_licence: bool = False,
) -> DetectorSpec | None:
    """The detector that a command line asks for; None for one that `choose` is to find.

    Args:
        name: "auto" or one of NAMES.  "auto" with a folder as config: whichever
            library that model is for.
        finder: NAME or NAME/CONFIG of the detector whose boxes a backbone describes;
            None, where `regions` is "boxes": the detector of objects that can be had.
        config, weights, device, regions, finder_weights, accept_licence: see DetectorSpec.

    Raises:
        UserError: options that do not belong together.
    """
    if name == "auto" and config is not None and Path(config.partition("#")[0]).is_dir():
        from cqr.pipeline.detectors.backbones.choice import recognise

        name = recognise(Path(config.partition("#")[0]))
    if name == "auto":
        if config or weights:
            raise UserError("--config and --weights need a --detector that they belong to; name it")
        if regions or finder or finder_weights or accept_licence:
            raise UserError(
                "--regions, --finder and --accept-licence need a --detector that they belong to; "
                "name it"
            )
        return None
    found: DetectorSpec | None = None
    if finder:
        network, _, rest = finder.partition("/")
        found = DetectorSpec(network, rest or None, finder_weights, device)
    elif finder_weights:
        raise UserError("--finder-weights needs a --finder that they belong to; name it")
    elif regions == "boxes":
        objects, tried = _objects(device)
        if objects is None:
            raise UserError(
                f"--regions boxes needs a detector of objects, and {'; '.join(tried)}: name one "
                "with --finder, and its file with --finder-weights"
            )
        found = objects[0]
    return DetectorSpec(name, config, weights, device, regions, found, accept_licence)


def _scenes(folder: Path) -> tuple[Path, str] | None:
    """The scenes.json that `cqr scenes` left in this folder or the one above, and its layout."""
    folder = folder.resolve()
    for path in (folder / "scenes.json", folder.parent / "scenes.json"):
        try:
            content = parsed(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("format") == "cqr-scenes":
            return path, str(content.get("layout", "grid"))
    return None


def backend(
    name: str, config: str | None, weights: Path | None, device: "torch.device"
) -> "Backend":
    """The network behind a name; see DetectorSpec."""
    if name in BACKBONES:
        raise UserError(f"{name} finds no boxes; choose from {', '.join(FINDERS)}")
    if name not in FINDERS:
        raise UserError(f"no detector is named {name}; choose --detector from {', '.join(NAMES)}")
    module = import_module(f"cqr.pipeline.detectors.{name}")
    loaded: Backend = module.backend(config, weights, device)
    return loaded
