"""Opening media files, and one line for whatever is wrong with them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.filter import Graph
from av.format import Flags
from av.stream import Disposition
from av.video.stream import VideoStream

from difftalk_pl.errors import UserError


class MediaError(UserError):
    """A media file cannot be used; the message names the file and the cause."""


class WriteError(MediaError):
    """A file cannot be written, whatever it is made from."""


@contextmanager
def media_errors(path: str | Path, cause: str = "damaged") -> Iterator[None]:
    """Turn what PyAV raises about a file into a MediaError."""
    try:
        yield
    except (av.FFmpegError, OSError, IndexError) as error:  # IndexError: packets of a track that the headers lack
        raise MediaError(f"{path}: {cause}: {getattr(error, 'strerror', None) or error}") from error


def open_media(path: str | Path) -> InputContainer:
    """Open a container, which the caller closes. Raises MediaError if it is unreadable."""
    has_content = Path(path).is_file() and Path(path).stat().st_size > 0
    with media_errors(path, "unreadable: not a media file, or cut off" if has_content else "unreadable"):
        return av.open(str(path), metadata_errors="replace")


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the first video track that is not the cover picture of an audio file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise MediaError(f"{path}: no video track")


def clock_zero(container: InputContainer) -> float:
    """Return where the clock starts, s: broadcast streams count from an arbitrary time, files from zero."""
    discontinuous = Flags.ts_discont in Flags(container.format.flags)
    return (container.start_time or 0) / av.time_base if discontinuous else 0.0


def check_span(path: str | Path, start: float, stop: float | None, end: float, grace: float = 1.0) -> None:
    """Raise MediaError for a span with nothing in it, or one that ends more than `grace` seconds after `end`: times in
    lists are often whole seconds, and rounded up."""
    if start >= end or (stop is not None and stop - end > grace):
        span = f"from {start:g} s on" if stop is None else f"from {start:g} to {stop:g} s"
        raise MediaError(f"{path}: there is no span {span} in it: it ends at {end:.2f} s")


def pull(graph: Graph) -> Iterator[Any]:
    """Yield the frames that a filter has ready."""
    with suppress(BlockingIOError, EOFError):
        while True:
            yield graph.pull()
