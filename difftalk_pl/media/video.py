"""Frames at exact times: a video resampled to a fixed rate, read back and forth, or read by frame number.

Times are `pts * time_base`. Counting frames instead lets picture and audio drift apart as soon as a file runs at
29.97 fps, at a variable rate, or starts late in one of its streams.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from itertools import chain, dropwhile, repeat
from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from difftalk_pl.media.colour import ToRGB
from difftalk_pl.media.files import MediaError, check_span, clock_zero, media_errors, open_media, video_stream

EPSILON = 1e-6  # s; a frame that is due at k / fps may carry a rounded timestamp
TRUNCATED = 0.5  # s that may be missing at the end before a file counts as cut off
HALF = 0.5 + EPSILON  # frames, added to round
EARLIER = (0, 1, 4, 16)  # s before a time, where a seek may have to go to find a key frame before it
ENDLESS = 2**62
HELD_BYTES = 48_000_000  # decoded frames that are held to read backwards


class VideoInfo(NamedTuple):
    """What a file's headers say, as displayed: after rotation and with square pixels."""

    width: int
    height: int
    rate: float  # frames per second: the usual rate that the timestamps mean
    duration: float  # end of the video stream on the container's clock, s
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Read size, rate, end and presence of audio; decodes one frame, because only frames tell the rotation.

    Raises:
        MediaError: the file is unreadable or has no video track.
    """
    with closing(_Decoder(path)) as file, media_errors(path):
        first = next(file.decode(), None)
        if first is None:
            raise MediaError(f"{path}: the video track holds no frame")
        height, width = ToRGB(file.stream)(first).shape[:2]
        duration = file.end() or (file.container.duration or 0) / av.time_base
        rate = float(file.stream.guessed_rate or 25)
        return VideoInfo(width, height, rate, duration, bool(file.container.streams.audio))


def read_frames(
    path: str | Path,
    fps: float = 25.0,
    start: float = 0.0,
    stop: float | None = None,
    convert: Callable[[VideoStream], Callable[[VideoFrame], Any]] = ToRGB,
    count: int | None = None,
    file: "_Decoder | None" = None,
) -> Iterator[Any]:
    """Resample frames in time: number k is the one on the screen at exactly start + k / fps seconds.

    That is the last frame whose time is not after it; the first one is shown before its time, and the last one until
    its end. There are round((end - start) * fps) of them. Memory holds one frame. A span gives the pixels of the whole
    file; decoding begins at the key frame before it.

    Args:
        stop: s; the file's end by default. It may lie a second beyond the end; the span is shorter then.
        convert: makes arrays of decoded frames, such as `ToLuma`.
        count: after so many frames nothing more is decoded.
        file: the same file, opened before; it is left open.

    Yields:
        (H, W, 3) uint8 RGB, rotated as the file asks, or what `convert` makes. The same object may come several times:
        copy before writing into it.

    Raises:
        MediaError: unreadable, no video track, damaged, cut off, or no such span in it.
    """
    most = min(ENDLESS if count is None else count, ENDLESS if stop is None else floor((stop - start) * fps + HALF))
    shown, done, end = None, 0, 0.0
    with nullcontext(file) if file else closing(_Decoder(path)) as video, media_errors(path):
        converted, usual = convert(video.stream), 1 / (video.stream.average_rate or 25)
        for frame in video.decode(start):
            time = end if frame.time is None else frame.time - video.zero
            if shown is not None and (times := min(ceil((time - start - EPSILON) * fps), most) - done) > 0:
                yield from repeat(converted(shown), times)
                done += times
            if done >= most:
                return
            shown, end = frame, time + float(frame.duration * (frame.time_base or 0) or usual)
        if shown is None:
            raise MediaError(f"{path}: the video track holds no frame")
        total = max(floor((end - start) * fps + HALF), done, 0 if start else 1)
        if (declared := video.end()) - end > TRUNCATED and total < most:
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
        self.path, self._container = path, open_media(path)
        self._stream = video_stream(self._container, path)
        self._stream.thread_type = "NONE"  # threads would each hold frames, in every loader worker, for every open clip
        entries = list(self._stream.index_entries)
        if not all(entry.is_keyframe for entry in entries):
            self.close()
            raise MediaError(f"{path}: not every frame is a key frame; prepare the clip again")
        self._pts, self._to_rgb = [entry.timestamp for entry in entries], ToRGB(self._stream)

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


def read_ordered(path: str | Path, order: Iterable[int], fps: float = 25.0) -> Iterator[np.ndarray]:
    """Yield frames of `read_frames` by number, such as back and forth, (H, W, 3) uint8.

    Rising numbers are decoded forward; falling ones in blocks, each decoded forward and emptied from its end, so that
    memory does not grow. The same array object may come several times.

    Raises:
        MediaError: there is no such frame, or it cannot be decoded a second time.
    """
    numbers, shown, image = np.array(list(order), int), None, np.empty(0)
    turns = np.flatnonzero(np.diff(np.sign(np.diff(numbers)))) + 2
    with closing(_Decoder(path)) as file:
        to_rgb, block = ToRGB(file.stream), max(2 * HELD_BYTES // (3 * file.stream.width * file.stream.height), 1)
        for run in np.split(numbers, turns) if len(numbers) else ():
            rises = run[0] <= run[-1]
            for first in range(0, len(run), len(run) if rises else block):
                part = run[first : first + (len(run) if rises else block)]
                for frame in _rising(file, part, fps) if rises else reversed(list(_rising(file, part[::-1], fps))):
                    if frame is not shown:
                        shown, image = frame, to_rgb(frame)
                    yield image


def _rising(file: "_Decoder", numbers: np.ndarray, fps: float) -> Iterator[VideoFrame]:
    first, count = int(numbers[0]), int(numbers[-1] - numbers[0]) + 1
    decoded = read_frames(file.path, fps, first / fps, None, lambda stream: lambda frame: frame, count, file)
    at, frame = first - 1, None
    for number in numbers:
        while at < number:
            at, frame = at + 1, next(decoded, None)
        if frame is None:
            raise MediaError(f"{file.path}: frame {number} cannot be decoded a second time; leave the file alone")
        yield frame


class _Decoder:
    """An open video, to be decoded from any time on."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        self.container, self._is_new = open_media(self.path), True
        self.stream, self.zero = video_stream(self.container, self.path), clock_zero(self.container)
        self.stream.thread_type, self.stream.codec_context.thread_count = "AUTO", 2

    def decode(self, time: float = 0.0) -> Iterator[VideoFrame]:
        """Decode from the key frame before `time` s on; from the beginning where no seek leads there."""
        for earlier in EARLIER if time > 0 else ():
            self._is_new = False
            try:
                place = floor((time + self.zero - earlier) / (self.stream.time_base or 1))
                self.container.seek(place, stream=self.stream)
                frames = dropwhile(lambda frame: not frame.key_frame, self.container.decode(self.stream))
                first = next(frames, None)
            except av.FFmpegError:
                break
            if first is not None and first.time is not None and first.time <= time + self.zero + EPSILON:
                return chain([first], frames)
        if not self._is_new:
            self.close()
            self._open()
        self._is_new = False
        return self.container.decode(self.stream)

    def close(self) -> None:
        self.container.close()

    def end(self) -> float:
        """Return the end of the track by its headers, s; 0 where they do not say it."""
        if self.stream.duration is None or self.stream.time_base is None:
            return 0.0
        return float(((self.stream.start_time or 0) + self.stream.duration) * self.stream.time_base) - self.zero
