"""What the metadata of a generated video say, and where such a video may be written."""

import os
from collections.abc import Iterable
from pathlib import Path

from difftalk_pl.errors import UserError
from difftalk_pl.media.containers import MediaError, open_media

TAG = "difftalk_pl"  # how it was made, as JSON
JOB = "difftalk_pl_job"  # names the job that made it


def read_tags(path: Path) -> dict[str, str]:
    """The metadata of a file. Raises MediaError where it is no media file."""
    with open_media(path) as container:
        return dict(container.metadata)


def refuse_target(path: Path, inputs: Iterable[Path]) -> None:
    """Make the folder of a file that is to be written.

    Raises:
        UserError: the file cannot be written, is one of the inputs, or is there and no video of this project.
    """
    refuse_place(path, inputs)
    if not path.exists():
        return
    try:
        ours = TAG in read_tags(path)
    except MediaError:
        ours = False
    if not ours:
        raise UserError(f"{path}: is there already and was not made here; remove it or give another name")


def refuse_place(path: Path, inputs: Iterable[Path]) -> None:
    """As `refuse_target`, whatever is there already."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: its folder cannot be made: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path}: its folder cannot be written to; give another one")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path}: is an input, which is not written over; give another name")
