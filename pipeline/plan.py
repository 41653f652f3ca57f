"""Which picture goes to which shard: written before the first shard, so that every run agrees."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.pipeline.shards import Header
from cqr.typed import built, parsed

FORMAT = "cqr-plan"
VERSION = 1


@dataclass(frozen=True)
class Plan:
    """The header of a set, and for each shard the sorted paths that belong to it."""

    header: Header
    shards: tuple[tuple[str, ...], ...]

    @property
    def paths(self) -> list[str]:
        return [path for shard in self.shards for path in shard]

    def with_added(self, paths: Sequence[str], size: int) -> Self:
        """The paths that the plan lacks, in their order, in new shards of `size` at the end."""
        known = set(self.paths)
        new = [path for path in paths if path not in known]
        added = tuple(tuple(sorted(new[i : i + size])) for i in range(0, len(new), size))
        return dataclasses.replace(self, shards=self.shards + added)

    def save(self, folder: Path) -> None:
        content = {
            "format": FORMAT,
            "version": VERSION,
            "header": dataclasses.asdict(self.header),
            "shards": self.shards,
        }
        with replacing(folder / "plan.json") as temporary:
            temporary.write_text(json.dumps(content))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The plan in a folder of shards; None where there is none.

        Raises:
            UserError: it cannot be read, or is of another version.
        """
        file = folder / "plan.json"
        try:
            content = parsed(file.read_bytes())
            if content["format"] == FORMAT and content["version"] != VERSION:
                raise UserError(
                    f"{file} is of version {content['version']}, this cqr reads {VERSION}:"
                    f" update cqr, or start again with --overwrite"
                )
            header = built(Header, content["header"])
            if header.k < 1 or header.dim < 1:
                raise ValueError(f"k {header.k}, dim {header.dim}")
            header.layout  # noqa: B018  raises where an extra is no dtype
            shards = tuple(map(tuple, content["shards"]))
            if not all(isinstance(path, str) for shard in shards for path in shard):
                raise ValueError("a path is no text")
            return cls(header, shards)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} cannot be read ({error}); start again with --overwrite"
            ) from error


def shard_name(index: int) -> str:
    return f"{index:05d}.h5"


def shard_size(pictures: int) -> int:
    """How many pictures a shard holds unless the user says.

    Few, so that a kill costs little and every core has work; but not so few
    that hundreds of thousands of pictures need more files than a process may
    open at once, which a virtual dataset does.
    """
    return min(512, max(16, min(256, pictures // 8), pictures // 400))
