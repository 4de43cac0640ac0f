"""Kept for the HDTF commands until they are replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from difftalk_pl.media.files import MediaError


@contextmanager
def media_errors(path: str | Path, cause: str) -> Iterator[None]:
    """Turn whatever the libraries raise about a file into one line that names it."""
    try:
        yield
    except (av.FFmpegError, OSError, IndexError) as error:  # IndexError: PyAV, of packets of a track that is not there
        raise MediaError(f"{path}: {cause}: {getattr(error, 'strerror', None) or error}") from error


def open_file(path: str | Path) -> InputContainer:
    """An open container, to be closed by the caller.

    Raises:
        MediaError: unreadable.
    """
    known = Path(path).is_file() and Path(path).stat().st_size > 0
    with media_errors(path, "unreadable: not a media file, or cut off" if known else "unreadable"):
        return av.open(str(path), metadata_errors="replace")  # tags of others may be of any encoding


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """An open container; what breaks while it is read is a MediaError, too."""
    with open_file(path) as container, media_errors(path, "damaged"):
        yield container


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The first video track that is not the cover picture of a sound file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise MediaError(f"{path}: no video track")


def audio_stream(container: InputContainer, path: str | Path) -> AudioStream:
    if not container.streams.audio:
        raise MediaError(f"{path}: no audio track")
    return container.streams.audio[0]


def clock_zero(container: InputContainer) -> Fraction:
    """Where the clock starts: broadcast streams count from an arbitrary time, files from zero."""
    if Flags.ts_discont in Flags(container.format.flags) and container.start_time is not None:
        return Fraction(container.start_time, av.time_base)
    return Fraction(0)


def time_of(frame: av.frame.Frame, otherwise: Fraction) -> Fraction:
    """When a frame is seen or heard, s; `otherwise` where it does not say."""
    pts = frame.pts if frame.pts is not None else frame.dts
    return otherwise if pts is None or frame.time_base is None else pts * frame.time_base


def end_of(frame: VideoFrame, stream: VideoStream, otherwise: Fraction = Fraction(0)) -> Fraction:
    """When a frame leaves the screen if nothing follows: after its own duration or, where that is missing, the
    average one."""
    duration = (
        frame.duration * Fraction(frame.time_base)
        if frame.duration and frame.time_base
        else 1 / (stream.average_rate or Fraction(25))
    )
    return time_of(frame, otherwise) + duration


def declared_end(container: InputContainer, stream: VideoStream | AudioStream) -> Fraction | None:
    """The end of a track as the headers have it, s."""
    if stream.duration is None or stream.time_base is None:
        return None
    return ((stream.start_time or 0) + stream.duration) * Fraction(stream.time_base)
