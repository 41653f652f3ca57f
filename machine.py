"""What the machine gives this process, on systems that say it and on those that do not."""

import os


def cores() -> int:
    """Cores that this process may use: those it was given on Linux, else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
