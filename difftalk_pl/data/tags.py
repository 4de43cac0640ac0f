"""What the metadata of a generated video say."""

from pathlib import Path

from difftalk_pl.data.media import open_media

TAG = "difftalk_pl"  # how it was made, as JSON
JOB = "difftalk_pl_job"  # names the job that made it


def read_tags(path: Path) -> dict[str, str]:
    """The metadata of a file. Raises MediaError where it is no media file."""
    with open_media(path) as container:
        return dict(container.metadata)
