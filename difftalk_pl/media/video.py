"""Frames at exact times: a video resampled to a fixed rate, read back and forth, or read by frame number.

Times are `pts * time_base`. Counting frames instead lets picture and audio drift apart as soon as a file runs at
29.97 fps, at a variable rate, or starts late in one of its streams.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, dropwhile, repeat
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from difftalk_pl.media.colour import ToLuma, ToRGB
from difftalk_pl.media.files import MediaError, check_span, clock_zero, media_errors, open_media, video_stream

EPSILON = 1e-6  # s; a frame that is due at k / fps may carry a rounded timestamp
TRUNCATED = 0.5  # s that may be missing at the end before a file counts as cut off
EARLIER = (0, 1, 4, 16)  # s before a time, where a seek may have to go to find a key frame before it
FASTEST = 120  # frames per second; more is a guess of ffmpeg's at a variable rate
ENDLESS = 2**62
HELD_BYTES = 96_000_000  # frames that are held to read backwards, as RGB; decoded they take half


class VideoInfo(NamedTuple):
    """What a file's headers say, as displayed: after rotation and with square pixels."""

    width: int
    height: int
    rate: float  # frames per second: the usual rate that the timestamps mean, or their average
    duration: float  # end of the video stream on the container's clock, s
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Read size, rate, end and presence of audio; decodes one frame, because only frames tell the rotation.

    Raises:
        MediaError: the file is unreadable or has no video track.
    """
    with _open_stream(path) as (container, stream, frames):
        first = next(frames, None)
        if first is None:
            raise MediaError(f"{path}: the video track holds no frame")
        height, width = ToRGB(stream)(first).shape[:2]
        duration = _declared_end(container, stream) or sum(1 for _ in read_frames(path, 25, convert=ToLuma)) / 25
        rates = [float(rate) for rate in (stream.guessed_rate, stream.average_rate) if rate and rate <= FASTEST]
        return VideoInfo(width, height, rates[0] if rates else 25.0, duration, bool(container.streams.audio))


def read_frames(
    path: str | Path,
    fps: float = 25.0,
    start: float = 0.0,
    stop: float | None = None,
    convert: Callable[[VideoStream], Callable[[VideoFrame], np.ndarray]] = ToRGB,
    count: int | None = None,
) -> Iterator[np.ndarray]:
    """Resample frames in time: number k is the one on the screen at exactly start + k / fps seconds.

    That is the last frame whose time is not after it; before the first frame's time the first frame is shown, and the
    last one is held until its own end. There are round((end - start) * fps) of them. Only one frame is in memory at a
    time. A span gives the pixels of the whole file; decoding begins at the key frame before it.

    Args:
        stop: s; the file's end by default. A span may go beyond the end by a second, and is shorter then.
        convert: makes arrays of decoded frames, such as `ToLuma`, where brightness is enough.
        count: after so many frames nothing more is decoded.

    Yields:
        (H, W, 3) uint8 RGB, rotated as the file asks, or what `convert` makes. The same array object may come several
        times: copy before writing into it.

    Raises:
        MediaError: unreadable, no video track, damaged, cut off, or no such span in it.
    """
    most = min(ENDLESS if count is None else count, ENDLESS if stop is None else _rounded((stop - start) * fps))
    shown, done, end = None, 0, 0.0
    with _open_stream(path, start) as (container, stream, frames):
        converted, zero, usual = convert(stream), clock_zero(container), 1 / (stream.average_rate or 25)
        for frame in frames:
            time = end if frame.time is None else frame.time - zero
            if shown is not None and (times := min(ceil((time - start - EPSILON) * fps), most) - done) > 0:
                yield from repeat(converted(shown), times)
                done += times
            if done >= most:
                return
            shown, end = frame, time + float(frame.duration * (frame.time_base or 0) or usual)
        if shown is None:
            raise MediaError(f"{path}: the video track holds no frame")
        total, declared = (
            max(_rounded((end - start) * fps), done, 0 if start else 1),
            _declared_end(container, stream) or end,
        )
        if declared - end > TRUNCATED and total < most:
            raise MediaError(f"{path}: breaks off at {end:.1f} s of {declared:.1f} s; fetch the file again")
        if start or stop is not None:
            check_span(path, start, stop, end)
        yield from repeat(converted(shown), min(total, most) - done)


class FrameReader:
    """Random access by frame number to a file written with `intra=True`. One per process: a decoder cannot be pickled.

    Raises:
        MediaError: unreadable, or not every frame is a key frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._container = open_media(path)
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
        """Return frame k, (H, W, 3) uint8 RGB."""
        if not 0 <= k < len(self):
            raise IndexError(f"{self.path}: frame {k} of {len(self)}")
        with media_errors(self.path):
            self._container.seek(self._pts[k], stream=self._stream)
            for frame in self._container.decode(self._stream):
                if frame.pts == self._pts[k]:
                    return self._to_rgb(frame)
        raise MediaError(f"{self.path}: frame {k} cannot be decoded; prepare the clip again")

    def close(self) -> None:
        self._container.close()


class SourceVideo:
    """The frames of `read_frames`, to be read a second time in another order, such as back and forth.

    Args:
        fps: output frames a second.
    """

    def __init__(self, path: str | Path, fps: float = 25.0) -> None:
        self.path, self.fps = Path(path), fps
        self._block = 1

    def frames(self, last: int | None = None) -> Iterator[np.ndarray]:
        """Yield what `read_frames` yields; with `last`, the first so many frames."""
        for image in read_frames(self.path, self.fps, count=last):
            self._block = max(HELD_BYTES // image.nbytes, 1)
            yield image

    def ordered(self, order: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield frames by number, (H, W, 3) uint8, with the pixels of the first pass.

        Rising numbers are decoded forward; falling ones in blocks, each decoded forward and emptied from its end, so
        that memory does not grow. The same array object may come several times.

        Raises:
            MediaError: there is no such frame, or it cannot be decoded a second time.
        """
        numbers = np.array(list(order), int)
        turns = np.flatnonzero(np.diff(np.sign(np.diff(numbers)))) + 2
        for run in np.split(numbers, turns) if len(numbers) else ():
            if run[0] <= run[-1]:
                yield from self._rising(run)
                continue
            for first in range(0, len(run), self._block):
                yield from reversed(list(self._rising(run[first : first + self._block][::-1])))

    def _rising(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        first, last = int(numbers[0]), int(numbers[-1])
        frames = enumerate(read_frames(self.path, self.fps, first / self.fps, count=last - first + 1), first)
        at, image = -1, np.empty(0)
        for number in numbers:
            while at < number:
                at, image = next(frames, (ENDLESS, image))
            if at > number:
                raise MediaError(f"{self.path}: frame {number} cannot be decoded a second time; leave the file alone")
            yield image


@contextmanager
def _open_stream(
    path: str | Path, time: float = 0.0
) -> Iterator[tuple[InputContainer, VideoStream, Iterator[VideoFrame]]]:
    """Open a video to be decoded from the key frame before `time` on; from its beginning where no seek leads there."""
    for earlier in (*EARLIER, None) if time > 0 else (None,):
        with open_media(path) as container, media_errors(path):
            stream = video_stream(container, path)
            stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
            frames = container.decode(stream) if earlier is None else _seek(container, stream, time, earlier)
            if frames is not None:
                yield container, stream, frames
                return


def _seek(container: InputContainer, stream: VideoStream, time: float, earlier: float) -> Iterator[VideoFrame] | None:
    """Decode from the key frame at most at `time - earlier` on; None if there is none, or it lies after `time`."""
    time += clock_zero(container)
    try:
        container.seek(floor((time - earlier) / (stream.time_base or 1)), stream=stream)
        frames = dropwhile(lambda frame: not frame.key_frame, container.decode(stream))
        first = next(frames, None)
    except av.FFmpegError:
        return None
    if first is None or first.time is None or first.time > time + EPSILON:
        return None
    return chain([first], frames)


def _declared_end(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the end of a track by its headers, s."""
    if stream.duration is None or stream.time_base is None:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - clock_zero(container)


def _rounded(frames: float) -> int:
    return floor(frames + 0.5 + EPSILON)
