"""The one exception that a command shows to its user."""


class UserError(Exception):
    """The work failed for a reason outside the code: one line that names the file, the cause and the remedy.

    Commands print the line and leave with exit code 1; everything else is a defect and keeps its traceback.
    """
