"""The words that settings take.  Light: the command line shows them before torch is loaded."""

from typing import Literal

Input = Literal["regions", "whole"]
"""What a model is given of an image: its regions, or the whole image as the only one."""

Loss = Literal["batch-classification", "soft-triplet", "soft-triplet-sampled"]
"""See `training.steps.losses`."""

Kappa = Literal["dot", "squared-l2"]
"""The similarity inside a loss: the dot product, or minus the squared Euclidean distance."""

Negatives = Literal["all", "wrong"]
"""What a query is told from in a batch: every other target, or those alone that are wrong for it,
which leaves out pictures that the data set counts as equally right."""

Distance = Literal["half-cosine", "cosine"]
"""See `models.snr`."""

Start = Literal["scratch", "joint"]
"""What a training begins with; see `models.from_joint`."""

Select = Literal["validation", "test", "last"]
"""Which epoch's weights are kept: the best on the held-out queries, the best on the test
queries (TIRG's habit: flatters), or the last."""

ModelName = Literal[
    "lbf",
    "image-only",
    "text-only",
    "concatenation",
    "show-and-tell",
    "parameter-hashing",
    "relationship",
    "film",
    "mrn",
    "tirg",
    "compose-ae",
    "combiner",
    "maaf",
    "deepset",
    "cosmo",
    "val",
    "clvc-net",
    "likeness",
    "zero-shot",
]
"""See `models.MODELS` and, of the last two, `models.UNTRAINED`."""
