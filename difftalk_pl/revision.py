"""Which code made a result: the commit of the checkout that the package runs from."""

import subprocess
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
SECONDS = 5  # on a slow network folder; then without


@cache
def revision() -> str | None:
    """Such as "4d35663", with "-dirty" where tracked files are changed. None outside of a checkout or without git.

    Asked once a process: the code that runs is that of its start. A repository around an installed package is not
    its checkout.
    """
    if not (CHECKOUT / ".git").exists():
        return None
    place = [f"--git-dir={CHECKOUT / '.git'}", f"--work-tree={CHECKOUT}", "--no-optional-locks"]
    command = ["git", *place, "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
