"""Processes that leave Ctrl-C, which a terminal sends to all, to their parent, and end with it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import parent_process, resource_tracker
from types import FrameType


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """A process started within never sees Ctrl-C: its parent does, and ends it.

    The parent itself sees it at the end of this, not between: it would not know
    of what it then has to end.  The mask alone does not see to that, since
    another thread may take the signal.
    """
    # Python's tracker of shared resources would lift the mask, were it not there before.
    resource_tracker.ensure_running()
    held: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    holds = threading.current_thread() is threading.main_thread() and callable(handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if holds:
        signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        if holds:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if held and callable(handler):
        handler(*held[0])


def end_with_parent() -> None:
    """Have this process end at once when the one that started it has, however that ended."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
