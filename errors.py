"""The one error type for what a user can cause and mend, and the words of other errors in it."""


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with status 1, without a
    traceback.  Anything else that is raised is a defect of the program.
    """


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
