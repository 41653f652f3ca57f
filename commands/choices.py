"""Choices as the command line offers them: in the help, in completions, and in its refusals.

Light copies of what the parts know, so that no help waits for them; tests hold them together.
"""

from enum import StrEnum


class DetectorName(StrEnum):
    auto = "auto"
    bundled = "bundled"
    torchvision = "torchvision"
    detectron2 = "detectron2"
    grid = "grid"
    open_clip = "open_clip"
    timm = "timm"
    transformers = "transformers"


class DataSetName(StrEnum):
    css = "css"
    fashion_200k = "fashion-200k"
    mit_states = "mit-states"
    fashion_iq = "fashion-iq"
    shoes = "shoes"
    cirr = "cirr"
    circo = "circo"
    table = "table"
    attributes = "attributes"


class Format(StrEnum):
    npz = "npz"
    parquet = "parquet"


def value(choice: StrEnum | None) -> str | None:
    """The plain word of a choice."""
    return None if choice is None else choice.value
