"""The exceptions that a command shows to its user."""


class UserError(Exception):
    """The work failed for a reason outside the code: one line that names the file, the cause and the remedy.

    Commands print the line and leave with exit code 1; everything else is a defect and keeps its traceback.
    """


class UsageError(UserError):
    """A command was called wrongly: an option is missing, or has a value that it cannot have. Exit code 2."""


def reason_of(error: BaseException) -> str:
    """In one line: torch wraps what a loader's process raised into its traceback."""
    *above, last = str(error).strip().splitlines() or [type(error).__name__]
    return last.partition(": ")[2] if above else last
