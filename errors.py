"""The one error type for what a user can cause and mend, and the words of other errors in it."""

import errno
import re


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with status 1, without a
    traceback.  Anything else that is raised is a defect of the program.
    """


_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What is the machine's fault and not that of a file."""


_NO_MEMORY = re.compile(
    r"can(no|')t allocate memory|failed to map segment|bad_alloc", re.IGNORECASE
)
"""Of torch, the system, the loader of libraries, C++."""


def scarcity(error: BaseException) -> str | None:
    """What the machine is out of, where that is why something failed, in a sentence's words.

    Libraries hand on the system's error as a number in a text, so that is looked for too.
    """
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return "there is not enough memory: end other programs, or ask for less at a time"
    number = error.errno if isinstance(error, OSError) else None
    said = re.search(r"(?:errno|os error)\s*(?:=\s*)?(\d+)", str(error), re.IGNORECASE)
    number = number or (int(said[1]) if said else None)
    if number is None and "Too many open files" in str(error):  # of a loader of libraries
        number = errno.EMFILE
    why = {
        errno.EMFILE: "too many files are open: raise the limit with `ulimit -n`",
        errno.ENFILE: "the machine has too many files open: end other programs",
        errno.ENOMEM: "there is not enough memory: end other programs, or ask for less at a time",
        errno.ENOSPC: "the disk is full: make room or choose another place",
        errno.EDQUOT: "the disk quota is used up: make room or choose another place",
        errno.EIO: "the disk failed (input/output error)",
    }
    return why[number] if number in _SCARCE and number is not None else None


_REFUSED = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: "give yourself access, or name another",
    errno.EPERM: "give yourself access, or name another",
    errno.EROFS: "name another place",
    errno.ELOOP: "its links lead in a circle",
}


def refused(error: BaseException) -> str | None:
    """What file or folder the system lets nobody use like that, and why; None of other errors."""
    if not isinstance(error, OSError) or error.filename is None or error.errno not in _REFUSED:
        return None
    return f"cannot use {error.filename}: {error.strerror}; {_REFUSED[error.errno]}"


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
