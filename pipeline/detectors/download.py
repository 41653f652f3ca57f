"""Weights from the detector libraries' own addresses, into the libraries' own caches."""

import threading
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch

from cqr.digest import sha256
from cqr.errors import UserError


@dataclass(frozen=True)
class Source:
    """Where published weights are.

    Attributes:
        url: where they are published.
        path: where the library keeps its copy.
        sha256: how the file's sha256 begins; empty where it is not published.
    """

    url: str
    path: Path
    sha256: str = ""

    def get(self) -> Path:
        """The path of the weights, downloaded and checked if they were not there.

        Raises:
            UserError: they cannot be had, or are not what was published.
        """
        by_hand = f"fetch {self.url} by hand and pass it with --weights FILE"
        if not self.path.is_file():
            if not reachable(self.url, seconds=10):
                raise UserError(f"cannot reach {self.url} to download weights; {by_hand}")
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Writes beside the path, checks, renames: the file is whole or absent.
                torch.hub.download_url_to_file(
                    self.url, str(self.path), hash_prefix=self.sha256 or None, progress=True
                )
            except (OSError, RuntimeError) as error:
                raise UserError(
                    f"cannot download weights to {self.path}: {error}; {by_hand}"
                ) from error
        elif not sha256(self.path).startswith(self.sha256):
            raise UserError(
                f"the weights in {self.path} are damaged; delete that file and try again"
            )
        return self.path


def reachable(url: str, seconds: float = 3.0) -> bool:
    """Whether the server answers for this address within that time."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                answers.append(answer.status)
        except (OSError, HTTPException):
            pass

    # A thread, because looking up a name obeys no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)
