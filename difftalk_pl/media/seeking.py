"""Where decoding may begin so that a part of a file gives the pictures that the whole file gives."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from difftalk_pl.media.containers import MediaError, clock_zero, declared_end, end_of, open_file, time_of, video_stream

EARLIER = (Fraction(0), Fraction(1), Fraction(4), Fraction(16))  # s before a time, where a seek may have to go
UNDATED = "mpeg"  # program streams give few of their pictures a time
GRACE = 1.0  # s that a span may go beyond the end of its file: times are often whole seconds, and rounded up
EPSILON = Fraction(1, 1_000_000)
TRUNCATED = 0.5


def frames_from(
    container: InputContainer, stream: VideoStream, path: str | Path, time: Fraction
) -> Iterator[VideoFrame]:
    """Decoded frames from some key frame at or before a time on; all where no seek is to be trusted.

    Args:
        container: just opened.
        time: on the container's own clock, s.
    """
    point = seek_point(path, time) if time > 0 else None
    if point is None:
        return container.decode(stream)
    container.seek(point, stream=stream, backward=True)
    return _from_key_frame(container, stream)


def seek_point(path: str | Path, time: Fraction) -> int | None:
    """The timestamp to seek a fresh container to; None where the file has to be decoded from its beginning: no times
    in it, no pictures that stand alone, or no seek that ends before the time.

    A key frame that needs those before it (a picture that is refreshed part by part) does not stand alone.
    """
    for earlier in EARLIER:
        with open_file(path) as container:
            stream = video_stream(container, path)
            if container.format.name == UNDATED:
                return None
            base = stream.time_base or Fraction(1, av.time_base)
            point = int((time - earlier) / base)
            try:
                container.seek(point, stream=stream, backward=True)
                first = next(_from_key_frame(container, stream), None)
            except av.FFmpegError:
                continue
        if first is None or first.pts is None or first.pts * base > time:
            continue
        return point if first.pict_type == PictureType.I else None
    return None


def _from_key_frame(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """What leads up to the first key frame may need pictures that were never decoded."""
    return dropwhile(lambda frame: not frame.key_frame, container.decode(stream))


def check_span(path: str | Path, start: float, stop: float | None, end: float, what: str = "video") -> None:
    """Raises MediaError for a span with nothing in it, or one that goes further than `GRACE` beyond the end.

    Args:
        what: that ends.
    """
    if start >= end or (stop is not None and stop - end > GRACE):
        span = f"from {start:g} s on" if stop is None else f"from {start:g} to {stop:g} s"
        where = "before that" if start >= end else f"at {end:.2f} s"
        raise MediaError(f"{path}: there is no span {span} in it: the {what} ends {where}")


def timeline(
    container: InputContainer,
    stream: VideoStream,
    path: str | Path,
    fps: float,
    last: int | None = None,
    start: float = 0.0,
    stop: float | None = None,
) -> Iterator[tuple[VideoFrame, int]]:
    """Every decoded frame, with the number of times that `read_frames` shows it: how often it is on the screen when a
    frame is due, often not at all.

    Args:
        container: just opened.
        last: after so many shown frames nothing more is decoded.
        start, stop: s, as in `read_frames`.
    """
    stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
    step, most = 1 / Fraction(fps).limit_denominator(100_000), float("inf") if last is None else last
    if stop is not None:
        most = min(most, int((_exact(stop) - _exact(start)) / step + Fraction(1, 2)))
    zero, count, end = clock_zero(container) + _exact(start), 0, Fraction(0)
    shown: VideoFrame | None = None
    for frame in frames_from(container, stream, path, zero if start else Fraction(0)):
        if shown is not None:
            due = -(-(time_of(frame, end) - zero - EPSILON) // step)  # first k whose time is at or after this frame
            times = int(max(min(due, most) - count, 0))
            yield shown, times
            count += times
            if count >= most:
                return
        shown, end = frame, end_of(frame, stream, end)
    if shown is None:
        raise MediaError(f"{path}: the video track holds no frame")
    total = max(int((end - zero) / step + Fraction(1, 2)), count, 0 if start else 1)
    declared = declared_end(container, stream)
    if declared is not None and declared - end > TRUNCATED and total < most:
        raise MediaError(f"{path}: breaks off at {float(end):.1f} s of {float(declared):.1f} s; fetch the file again")
    if start or stop is not None:
        check_span(path, start, stop, float(end - zero) + start)
    yield shown, int(min(total, most)) - count


def _exact(seconds: float) -> Fraction:
    """A third of a second as the decimals of its caller mean it."""
    return Fraction(seconds).limit_denominator(1_000_000)
