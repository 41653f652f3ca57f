"""The one error type for what a user can cause and mend."""


class UserError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    The command line prints the sentence and exits with status 1, without a
    traceback.  Anything else that is raised is a defect of the program.
    """
