"""Which backbone to take when none is named, and which library a folder is for."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from cqr.errors import UserError
from cqr.pipeline.detectors import download
from cqr.pipeline.detectors.backbones import source
from cqr.typed import parsed


@dataclass(frozen=True)
class Candidate:
    """A joint model under a free licence.

    Attributes:
        detector, config: as `cqr extract` takes them.
        says: licence and size, as its page states them.
    """

    detector: str
    config: str
    says: str


CANDIDATES = (
    Candidate("transformers", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "MIT, 605 MB"),
    Candidate("transformers", "BAAI/BGE-VL-base", "MIT"),
    Candidate("transformers", "google/siglip2-base-patch16-224", "Apache-2.0, 1.5 GB"),
    Candidate("transformers", "google/siglip-base-patch16-224", "Apache-2.0, 813 MB"),
)
"""The first that is cached is taken, else the first is downloaded: it is the smallest, and with 49
tokens a picture a quarter of the work of the others, so a folder is done in its first minutes.
All are MIT or Apache; nothing under another licence is ever taken unasked."""


def joint() -> tuple[Candidate, str] | str:
    """The best joint backbone that can be had, and why; else what is in the way.

    Takes seconds at most, and downloads nothing.
    """
    for name in ("transformers", "huggingface_hub"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed (pip install 'cqr[vision]')"
    from cqr.pipeline.detectors.transformers import select

    for candidate in CANDIDATES:
        if source.cached(candidate.config, select) is not None:
            return candidate, f"{candidate.config}, {candidate.says}, is in the cache"
    best = CANDIDATES[0]
    url = source.address(best.config)
    if source.offline():
        return "no joint backbone is in the cache, and HF_HUB_OFFLINE is set"
    if download.reachable(url):
        return best, f"{url}, {best.says}, can be reached"
    return f"no joint backbone is in the cache, and {url} cannot be reached"


def recognise(folder: Path) -> str:
    """The detector that can load the model in a folder: "transformers", "open_clip" or "timm".

    Raises:
        UserError: the folder holds no model of theirs.
    """
    from cqr.pipeline.detectors import open_clip, timm, transformers

    names = [path.name for path in folder.iterdir() if path.is_file()]
    config = folder / "config.json"
    try:
        content = parsed(config.read_bytes()) if config.is_file() else {}
    except (OSError, ValueError):
        content = {}
    content = content if isinstance(content, dict) else {}
    if "model_type" in content and transformers.select(names):
        return "transformers"
    if open_clip.select(names):
        return "open_clip"
    if "architecture" in content and timm.select(names):
        return "timm"
    raise UserError(
        f"{folder} holds no model of transformers, open_clip or timm (a configuration and weights "
        "as they save them); check --config, or name the --detector"
    )
