"""What `cqr inspect` prints: apart from the rest, since it needs neither detector nor picture."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cqr.errors import UserError
from cqr.pipeline.examine import Findings, examine
from cqr.pipeline.feature_file import FeatureFile, open_features
from cqr.remote import is_remote, located


def inspect(path: Path, show: int, save: Path | None) -> None:
    """Print all that a feature file says of itself, then check it; draw boxes if asked.

    Raises:
        UserError: something is wrong with the file; what, is printed before.
    """
    path = located(path)
    file = open_features(path)
    findings = examine(file)
    Console().print(_table(file, findings))
    if show:
        from cqr.pipeline.show import draw

        beside = path.with_suffix(".boxes.png")
        save = save or (Path(beside.name) if is_remote(path) else beside)
        draw(file, show, save)
        print(f"Drew {min(show, len(file.paths))} pictures: {save}")
    for problem in findings.problems[:20]:
        print(f"Wrong: {problem}")
    if findings.problems:
        number = len(findings.problems)
        raise UserError(
            f"{path} has {number} fault{'s' if number > 1 else ''}, the first:"
            f" {findings.problems[0]}; make it again with: {file.header.command}"
            f" --out {shlex.quote(str(path))} --overwrite"
        )
    print(
        "All is well: checksums, shapes, finite values, boxes inside pictures, counts, every shard"
        " there"
    )


def _table(file: FeatureFile, findings: Findings) -> Table:
    header = file.header
    table = Table(show_header=False, title=str(file.path), title_justify="left", min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    mean = findings.regions / max(1, findings.pictures)
    disk = file.path.stat().st_size + sum(shard.path.stat().st_size for shard in file.shards)
    sizes = file.sizes
    failed = file.path.with_suffix(".failures.csv")
    facts = {
        "pictures": f"{findings.pictures:,} below {header.image_root}",
        "sizes": f"{_span(sizes[:, 0])} wide, {_span(sizes[:, 1])} high",
        "K": f"{header.k}; {findings.full:,} pictures have all, {mean:.1f} on average",
        "D": f"{header.dim}; largest value {findings.largest:.4g}",
        "extras": ", ".join(header.extras),
        "scores": f"{findings.score[0]:.3f} to {findings.score[1]:.3f}",
        "detector": "\n".join(_flat(header.detector)),
        "warning": header.warning,
        "made": f"{header.created} by cqr {header.made_by}",
        "command": header.command,
        "failures": f"listed in {failed}" if failed.exists() else "none",
        "on disk": f"{len(file.shards):,} shards, {size(disk)}",
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    return table


def _flat(identity: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A nested mapping as lines "outer.inner value"."""
    for key, value in identity.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} {value if isinstance(value, str) else json.dumps(value)}"


def _span(values: NDArray[np.int32]) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def size(number: float) -> str:
    """Bytes as they are said."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
