"""Where the library's log lines go when a command runs."""

import logging

from rich.logging import RichHandler

from difftalk_pl.progress import console


def log_to_terminal(level: int = logging.INFO) -> None:
    """Show the package's log lines on standard error, above any progress bar."""
    logger = logging.getLogger("difftalk_pl")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_path=False, show_time=False, markup=False))
    logger.setLevel(level)
    logger.propagate = False
