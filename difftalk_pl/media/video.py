"""Frames at exact times, audio on the same clock, and mp4 files that play anywhere.

Every time in this module is `pts * time_base` in seconds on the container's clock. Counting frames instead lets
picture and sound drift apart as soon as a file runs at 29.97 fps, at a variable rate, or starts late in one of its
streams.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from difftalk_pl.media.colour import ToRGB
from difftalk_pl.media.containers import (
    MediaError,
    WriteError,
    clock_zero,
    declared_end,
    end_of,
    media_errors,
    open_file,
    open_media,
    time_of,
    video_stream,
)
from difftalk_pl.media.encoding import SoundSource, encode, fit_audio
from difftalk_pl.media.seeking import check_span, frames_from
from difftalk_pl.media.sound import read_audio

__all__ = ["FrameReader", "MediaError", "VideoInfo", "fit_audio", "probe", "read_audio", "read_frames", "write_video"]
EPSILON = Fraction(1, 1_000_000)  # a frame that is due at k / fps may carry a rounded timestamp
TRUNCATED = 0.5  # seconds that may be missing at the end before a file counts as cut off
USUAL_RATES = [Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)]
USUAL_RATES += [Fraction(1000 * rate, 1001) for rate in (24, 30, 48, 60, 120)]
ROUNDING = Fraction(1, 500)  # as far as an average may lie from a usual rate and still mean it
RATES = (5, 120)  # frames a second that a talking video can have


class VideoInfo(NamedTuple):
    """What a file's headers say, as displayed: after rotation and with square pixels."""

    width: int
    height: int
    rate: float  # average frames per second
    duration: float  # end of the video stream on the container's clock, s
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Size, rate, end and presence of audio; decodes one frame, because only frames tell the rotation.

    Raises:
        MediaError: the file is unreadable or has no video track.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        zero, end, has_audio = clock_zero(container), declared_end(container, stream), bool(container.streams.audio)
        first = next(container.decode(stream), None)
        if first is None:
            raise MediaError(f"{path}: the video track holds no frame")
        height, width = ToRGB(stream)(first).shape[:2]
        if end is None:
            end = max((end_of(frame, stream) for frame in container.decode(stream)), default=end_of(first, stream))
        return VideoInfo(width, height, float(stream.average_rate or 0), float(end - zero), has_audio)


def source_rate(path: str | Path) -> float:
    """Frames a second of a file: the usual rate that its average means, exactly, or that average.

    Raises:
        MediaError: unreadable, no video track, or a rate that no talking video has.
    """
    with open_media(path) as container:
        average = video_stream(container, path).average_rate or Fraction(0)
    if not RATES[0] <= average <= RATES[1]:
        raise MediaError(
            f"{path}: its headers say {float(average):.4g} frames a second, expected {RATES[0]} to {RATES[1]}; give a "
            "number such as 25 instead"
        )
    usual = min(USUAL_RATES, key=lambda rate: abs(rate - average))
    return float(usual if abs(usual - average) <= ROUNDING * usual else average)


def read_frames(
    path: str | Path,
    fps: float = 25.0,
    start: float = 0.0,
    stop: float | None = None,
    convert: Callable[[VideoStream], Callable[[VideoFrame], np.ndarray]] = ToRGB,
) -> Iterator[np.ndarray]:
    """Frames resampled in time: number k is the one on the screen at exactly start + k / fps seconds.

    That is the last frame whose time is not after it; before the first frame's time the first frame is shown, and the
    last one is held until its own end. There are round((end - start) * fps) of them. Only one frame is in memory at a
    time. A span gives the very pixels of the whole file, and decoding begins at the key frame before it.

    Args:
        stop: s; the file's end by default. A span may go beyond the end by a second, and is shorter then.
        convert: makes arrays of decoded frames; `ToLuma`, for one, where brightness is enough.

    Yields:
        (H, W, 3) uint8 RGB, rotated as the file asks, or what `convert` makes. The same array object may come several
        times: copy before writing into it.

    Raises:
        MediaError: unreadable, no video track, breaks while decoding, ends well before its headers say, or there is no
            such span in it.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        converted = convert(stream)
        for frame, times in timeline(container, stream, path, fps, start=start, stop=stop):
            if times:
                yield from repeat(converted(frame), times)


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


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float = 25,
    audio: np.ndarray | SoundSource | None = None,
    rate: int = 16000,
    crf: float = 18,
    intra: bool = False,
    tags: dict[str, str] | None = None,
) -> int:
    """H.264 and AAC in an mp4 that appears under its name only when it is whole.

    Pixels are yuv420p, limited range, with the matrix written into the file: the one format that every player and
    browser takes.

    Args:
        frames: (H, W, 3) uint8 RGB, all of one size; an odd side is padded by one row or column of its edge.
        audio: (N,) int16 mono, or what gives it part by part, as `SoundReader` does; cut or padded to end with the
            last frame.
        crf: x264's quality, lower is better; 18 looks lossless.
        intra: every frame a key frame, so that `FrameReader` reaches any of them at once.
        tags: metadata of any key, e.g. how the file was made.

    Returns:
        the number of frames written

    Raises:
        MediaError: there are no frames.
        WriteError: the disk or the encoder fails.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with av.open(temporary, "w", format="mp4", options={"movflags": "use_metadata_tags+faststart"}) as container:
            container.metadata.update(tags or {})
            count = encode(container, iter(frames), Fraction(fps).limit_denominator(100_000), audio, rate, crf, intra)
        if count == 0:
            raise MediaError(f"{target}: no frames to write")
        os.replace(temporary, target)
    except av.FFmpegError as error:
        raise WriteError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


class FrameReader:
    """Random access by frame number to a file written with `intra=True`. One per process: a decoder cannot be pickled
    or forked.

    Raises:
        MediaError: unreadable, or not every frame is a key frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._container = open_file(path)
        self._stream = video_stream(self._container, path)
        self._stream.thread_type = "NONE"  # threads would each hold frames, in every loader worker, for every open clip
        entries = list(self._stream.index_entries)
        if not all(entry.is_keyframe for entry in entries):
            self.close()
            raise MediaError(f"{path}: not every frame is a key frame; prepare the clip again")
        self._pts = [entry.timestamp for entry in entries]
        self._to_rgb = ToRGB(self._stream)

    def __len__(self) -> int:
        return len(self._pts)

    def __getitem__(self, k: int) -> np.ndarray:
        """Frame k as (H, W, 3) uint8 RGB."""
        if not 0 <= k < len(self):
            raise IndexError(f"{self.path}: frame {k} of {len(self)}")
        with media_errors(self.path, "damaged"):
            self._container.seek(self._pts[k], stream=self._stream)
            for frame in self._container.decode(self._stream):
                if frame.pts == self._pts[k]:
                    return self._to_rgb(frame)
        raise MediaError(f"{self.path}: frame {k} cannot be decoded; prepare the clip again")

    def close(self) -> None:
        self._container.close()
