"""Where the library's log lines go when a command runs."""

import logging
import warnings

from rich.logging import RichHandler

from difftalk_pl.progress import console

IGNORED_WARNINGS = (  # of Lightning and torch, about what is meant to be so
    ".*does not have many workers.*",
    ".*WeightAveraging callback.*",
    "You're resuming from a checkpoint that ended before the epoch ended.*",  # the sampler knows where it was
    "LightningCLI's args parameter is intended to run from within Python.*",
    "Using ModelCheckpoint with manual optimization.*",
    ".*isinstance.treespec.*",
    ".*recommended to use `self.log.*sync_dist=True.*",  # what is logged so is the same on every rank
    "The ``compute`` method of metric .* was called before.*",  # of a rank without a clip
    "Checkpoint directory .* exists and is not empty.*",
    "Experiment logs directory .* exists and is not empty.*",
    "To get the last learning rate computed by the scheduler.*",
    "predict returned None if it was on purpose.*",
)


def log_to_terminal(level: int = logging.INFO) -> None:
    """Show the package's log lines on standard error, above any progress bar, and no warning that is meant to be so."""
    for pattern in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    logger = logging.getLogger("difftalk_pl")
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_path=False, show_time=False, markup=False))
    logger.setLevel(level)
    logger.propagate = False
