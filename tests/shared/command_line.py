"""`cqr` within the process of a test, which has imported what a process of its own would import.

By a process of its own each command but `cqr data` is run elsewhere, too.
"""

import subprocess
from importlib import import_module

from typer.testing import CliRunner

from cqr import cli

for module in ("cqr.search.console", "cqr.trainer.console"):
    import_module(module)  # what they print by is made here, not under the environment of a test


def cqr(*words: object, **environment: str) -> subprocess.CompletedProcess:
    """What it ends with and prints; raises what the command does not make a sentence of."""
    typed = [*map(str, words)]
    done = CliRunner().invoke(cli.app, typed, env=environment, catch_exceptions=False)
    return subprocess.CompletedProcess(typed, done.exit_code, done.stdout, done.stderr)
