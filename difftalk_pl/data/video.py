"""Frames at exact times, audio on the same clock, and mp4 files that play anywhere.

Every time in this module is `pts * time_base` in seconds on the container's clock. Counting frames instead lets
picture and sound drift apart as soon as a file runs at 29.97 fps, at a variable rate, or starts late in one of its
streams.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from difftalk_pl.data.colour import ToRGB
from difftalk_pl.data.encoding import encode, fit_audio
from difftalk_pl.errors import UserError

__all__ = ["FrameReader", "MediaError", "VideoInfo", "fit_audio", "probe", "read_audio", "read_frames", "write_video"]
EPSILON = Fraction(1, 1_000_000)  # a frame that is due at k / fps may carry a rounded timestamp
TRUNCATED = 0.5  # seconds that may be missing at the end before a file counts as cut off


HOLE = Fraction(1, 50)  # s; a larger jump in the clock of the sound is a hole, smaller ones are rounding


class MediaError(UserError):
    """A media file cannot be used; the message names the file and the cause."""


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
    with _open(path) as container:
        stream = _video_stream(container, path)
        zero, end, has_audio = _zero(container), _declared_end(container, stream), bool(container.streams.audio)
        first = next(container.decode(stream), None)
        if first is None:
            raise MediaError(f"{path}: the video track holds no frame")
        height, width = ToRGB(stream)(first).shape[:2]
        if end is None:
            end = max((_end(frame, stream) for frame in container.decode(stream)), default=_end(first, stream))
        return VideoInfo(width, height, float(stream.average_rate or 0), float(end - zero), has_audio)


def read_frames(path: str | Path, fps: float = 25.0) -> Iterator[np.ndarray]:
    """Frames resampled in time: number k is the one on the screen at exactly k / fps seconds.

    That is the last frame whose time is not after k / fps; before the first frame's time the first frame is shown,
    and the last one is held until its own end. There are round(end * fps) of them. Only one frame is in memory at a
    time.

    Yields:
        (H, W, 3) uint8 RGB, rotated as the file asks. The same array object may come several times: copy before
        writing into it.

    Raises:
        MediaError: unreadable, no video track, breaks while decoding, or ends well before its headers say.
    """
    step = 1 / Fraction(fps).limit_denominator(100_000)
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
        zero, to_rgb, count, end = _zero(container), ToRGB(stream), 0, Fraction(0)
        shown: VideoFrame | None = None
        for frame in container.decode(stream):
            if shown is not None:
                due = int(
                    -(-(_time(frame, end) - zero - EPSILON) // step)
                )  # first k whose time is at or after this frame
                if due > count:
                    image = to_rgb(shown)
                    yield from (image for _ in range(count, due))
                    count = due
            shown, end = frame, _end(frame, stream, end)
        if shown is None:
            raise MediaError(f"{path}: the video track holds no frame")
        declared = _declared_end(container, stream)
        if declared is not None and declared - end > TRUNCATED:
            raise MediaError(
                f"{path}: breaks off at {float(end):.1f} s of {float(declared):.1f} s; fetch the file again"
            )
        image = to_rgb(shown)
        yield from (image for _ in range(count, max(int((end - zero) / step + Fraction(1, 2)), count, 1)))


def read_audio(path: str | Path, rate: int = 16000) -> np.ndarray:
    """The first audio track, mixed to mono: sample n is heard at n / rate on the clock of `read_frames`.

    A track that starts late is padded with silence, one that starts before zero is cut; a hole in the track (lost
    packets) is silence, so that what follows it stays where it belongs.

    Returns:
        (N,) int16

    Raises:
        MediaError: unreadable or no audio track.
    """
    with _open(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: no audio track")
        runs = list(_sound_runs(container, rate))
    if not runs:
        raise MediaError(f"{path}: the audio track holds no sound")
    sound = np.zeros(max([0, *(start + len(samples) for start, samples in runs)]), np.int16)
    for start, samples in runs:
        inside = samples[max(-start, 0) :]
        sound[max(start, 0) : max(start, 0) + len(inside)] = inside
    return sound


def _sound_runs(container: InputContainer, rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """Stretches of unbroken sound: the number of their first sample, and (N,) int16."""
    zero, expected, start = _zero(container), None, Fraction(0)
    resampler, chunks = av.AudioResampler(format="s16", layout="mono", rate=rate), []
    for frame in container.decode(container.streams.audio[0]):
        time = _time(frame, expected or Fraction(0))
        if expected is None or abs(time - expected) > HOLE:
            if expected is not None:
                chunks += [out.to_ndarray()[0] for out in resampler.resample(None)]
                yield round((start - zero) * rate), np.concatenate(chunks)
                resampler, chunks = av.AudioResampler(format="s16", layout="mono", rate=rate), []
            start = time
        chunks += [out.to_ndarray()[0] for out in resampler.resample(frame)]
        expected = time + Fraction(frame.samples, frame.sample_rate)
    if expected is not None:
        chunks += [out.to_ndarray()[0] for out in resampler.resample(None)]
        yield round((start - zero) * rate), np.concatenate(chunks)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float = 25,
    audio: np.ndarray | None = None,
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
        audio: (N,) int16 mono; cut or padded to end with the last frame.
        crf: x264's quality, lower is better; 18 looks lossless.
        intra: every frame a key frame, so that `FrameReader` reaches any of them at once.
        tags: metadata of any key, e.g. how the file was made.

    Returns:
        the number of frames written

    Raises:
        MediaError: there are no frames, or the encoder fails.
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
        raise MediaError(f"{target}: cannot be written: {error.strerror}") from error
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
        self._container = _open_file(path)
        self._stream = _video_stream(self._container, path)
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
        with _errors(self.path, "damaged"):
            self._container.seek(self._pts[k], stream=self._stream)
            for frame in self._container.decode(self._stream):
                if frame.pts == self._pts[k]:
                    return self._to_rgb(frame)
        raise MediaError(f"{self.path}: frame {k} cannot be decoded; prepare the clip again")

    def close(self) -> None:
        self._container.close()


@contextmanager
def _errors(path: str | Path, cause: str) -> Iterator[None]:
    """Turn whatever the libraries raise about a file into one line that names it."""
    try:
        yield
    except (av.FFmpegError, OSError, IndexError) as error:  # IndexError: PyAV, of packets of a track that is not there
        raise MediaError(f"{path}: {cause}: {getattr(error, 'strerror', None) or error}") from error


def _open_file(path: str | Path) -> InputContainer:
    known = Path(path).is_file() and Path(path).stat().st_size > 0
    with _errors(path, "unreadable: not a media file, or cut off" if known else "unreadable"):
        return av.open(str(path), metadata_errors="replace")  # tags of others may be of any encoding


@contextmanager
def _open(path: str | Path) -> Iterator[InputContainer]:
    with _open_file(path) as container, _errors(path, "damaged"):
        yield container


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """The first video track that is not the cover picture of a sound file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise MediaError(f"{path}: no video track")


def _zero(container: InputContainer) -> Fraction:
    """Where the clock starts: broadcast streams count from an arbitrary time, files from zero."""
    if Flags.ts_discont in Flags(container.format.flags) and container.start_time is not None:
        return Fraction(container.start_time, av.time_base)
    return Fraction(0)


def _time(frame: av.frame.Frame, otherwise: Fraction) -> Fraction:
    pts = frame.pts if frame.pts is not None else frame.dts
    return otherwise if pts is None or frame.time_base is None else pts * frame.time_base


def _end(frame: VideoFrame, stream: VideoStream, otherwise: Fraction = Fraction(0)) -> Fraction:
    """When a frame leaves the screen if nothing follows: after its own duration or, where that is missing, the
    average one."""
    duration = (
        frame.duration * Fraction(frame.time_base)
        if frame.duration and frame.time_base
        else 1 / (stream.average_rate or Fraction(25))
    )
    return _time(frame, otherwise) + duration


def _declared_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return ((stream.start_time or 0) + stream.duration) * Fraction(stream.time_base)
