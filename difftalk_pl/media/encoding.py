"""Picture and sound into an open container, side by side."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Protocol

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from difftalk_pl.media.colour import CHROMA, ToYUV, tag_colours

# Key frames only. Beside `medium`, crf 5 on real clips: a quarter of the time to write, half of it to read, as CAVLC
# is simpler than CABAC. As x264 no longer bends the picture to the eye, fine detail at 256 pixels is 0.6 dB better and
# 16 % larger, and smooth pictures at 512 are 0.9 dB worse and 12 % smaller.
INTRA = {"preset": "superfast", "tune": "psnr", "coder": "cavlc", "g": "1", "bf": "0"}


def fit_audio(samples: np.ndarray, n: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly n samples."""
    return np.pad(samples[:n], (0, max(0, n - len(samples))))


class SoundSource(Protocol):
    """Sound that comes part by part, such as a `SoundReader`."""

    def take(self, n: int) -> np.ndarray:
        """The next n samples, (n,) int16; silence after the end."""
        ...


class Samples:
    """Sound in memory, (N,) int16, part by part."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples

    def take(self, n: int) -> np.ndarray:
        part, self.samples = fit_audio(self.samples[:n], n), self.samples[n:]
        return part


def encode(
    container: OutputContainer,
    frames: Iterator[np.ndarray],
    fps: Fraction,
    audio: np.ndarray | SoundSource | None,
    rate: int,
    crf: float,
    intra: bool,
) -> int:
    """Encode picture and sound side by side, so that the muxer never has to hold one back for the other."""
    first = next(frames, None)
    if first is None:
        return 0
    height, width = first.shape[:2]
    video = _video_output(container, width + width % 2, height + height % 2, fps, crf, intra)
    sound = (
        None
        if audio is None
        else container.add_stream("aac", rate=rate, layout="mono", bit_rate=min(128_000, 4 * rate))
    )
    source = Samples(audio) if isinstance(audio, np.ndarray) else audio
    to_yuv, count, heard = ToYUV(), 0, 0
    for image in chain([first], frames):
        yuv = to_yuv(image, count)
        yuv.time_base = 1 / fps
        container.mux(video.encode(yuv))
        count += 1
        if sound is not None and source is not None:
            until = round(count / fps * rate)
            container.mux(sound.encode(_audio_frame(source.take(until - heard), heard, rate)))
            heard = until
    container.mux(video.encode(None))
    if sound is not None:
        container.mux(sound.encode(None))
    return count


def _video_output(
    container: OutputContainer, width: int, height: int, fps: Fraction, crf: float, intra: bool
) -> VideoStream:
    options = {"crf": str(crf), **(INTRA if intra else {"preset": "medium"})}
    stream = container.add_stream("libx264", rate=fps, options=options | CHROMA)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 2  # more only cost memory: every thread holds frames
    tag_colours(stream.codec_context, height)
    return stream


def _audio_frame(samples: np.ndarray, start: int, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.int16, copy=False), format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame
