"""What `cqr index` does."""

from collections.abc import Callable
from pathlib import Path

from cqr.atomic import alone
from cqr.machine import find_device
from cqr.search import build as galleries
from cqr.search.build import Built
from cqr.search.engine import read_regions
from cqr.search.gallery import folder_of
from cqr.search.indexes import build_index
from cqr.trainer.training import runs
from cqr.trainer.training.runs import Run

Progress = Callable[[str, int, int], None]


def index(
    run: Run | Path | None,
    features: Path | None,
    index: str | None,
    metadata: Path | None,
    device: str,
    progress: Progress,
) -> tuple[Built, str]:
    """Build the gallery of a run, and the index that is asked for over it.

    Returns:
        What became of the gallery, and the name of the index.

    Raises:
        UserError: another process is at it; see `build.build` and `indexes.build_index`.
    """
    used = runs.chosen(run)
    on = find_device(device)
    reader = read_regions(used, features)
    folder = folder_of(used, reader.file.path)
    with alone(folder, f"indexing into {folder}"):
        built = galleries.build(
            used,
            reader,
            metadata=metadata,
            device=on,
            progress=lambda done, total: progress("encode", done, total),
        )
        name = build_index(index, built.gallery, lambda done, total: progress("index", done, total))
    return built, name
