"""Find an image with an image and a sentence.

    features = cqr.extract("photos", k=36)
    run = cqr.train(features.path)
    cqr.evaluate(run).recall
    cqr.open_gallery(run).search("photos/a.jpg", "make it red", k=10)

Importing cqr costs next to nothing: what a function needs is loaded when it is called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cqr.api import UserError, evaluate, extract, open_features, open_gallery, train

    __version__: str

__all__ = ["UserError", "evaluate", "extract", "open_features", "open_gallery", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cqr")
    if name in __all__:
        from cqr import api

        return getattr(api, name)
    raise AttributeError(f"module 'cqr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
