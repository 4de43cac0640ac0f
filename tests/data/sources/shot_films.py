"""Films of several shots, cut together from real clips, each frame at a time that is known exactly."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from scipy.ndimage import gaussian_filter1d

from difftalk_pl.media.containers import end_of, open_media, time_of, video_stream

CLOCK = Fraction(1, 90000)
SIDE = 160


class Film(NamedTuple):
    path: Path
    cuts: list[float]  # s, when the first frame of each further shot is shown
    end: float
    times: list[float]  # of all frames
    sound: np.ndarray  # (N,) int16 at 16 kHz, from the clock's zero on: noise, so that any shift shows


def film(path: Path, parts: Sequence[tuple[Path, float]], start: Fraction = Fraction(0)) -> Film:
    """The first seconds of clips one after the other, every frame for as long as it lasts in its clip; with sound.

    Args:
        parts: clips, with the seconds of each.
        start: of the first frame on the file's clock, s.
    """
    at, cuts, times = start, [], []
    form, options = ("mpegts", {}) if path.suffix == ".ts" else ("mp4", {"movflags": "faststart"})
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18", "preset": "veryfast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", CLOCK, CLOCK
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for number, (clip, seconds) in enumerate(parts):
            if number:
                cuts.append(float(at))
            began = at
            for picture, time, until in _frames(clip, seconds):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = round((began + time) / CLOCK), CLOCK
                frame.duration = round((until - time) / CLOCK)
                times.append(float(began + time))
                container.mux(stream.encode(frame))
                at = began + until
        container.mux(stream.encode(None))
        noise = gaussian_filter1d(np.random.default_rng(0).normal(size=round(at * 16000)), 2)
        noise = (8000 * noise).astype(np.int16)
        whole = av.AudioFrame.from_ndarray(noise[None], format="s16", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = 16000, 0, Fraction(1, 16000)
        for frame in av.AudioResampler(format="fltp", layout="mono", rate=16000, frame_size=1024).resample(whole):
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return Film(path, cuts, float(at), times, noise)


def _frames(clip: Path, seconds: float) -> Iterator[tuple[np.ndarray, Fraction, Fraction]]:
    """(picture, begin, end) from the first frame on, in ticks of CLOCK."""
    with open_media(clip) as container:
        stream = video_stream(container, clip)
        first: Fraction | None = None
        for frame in container.decode(stream):
            time = time_of(frame, Fraction(0))
            first = time if first is None else first
            if time - first >= seconds:
                return
            picture = frame.reformat(width=SIDE, height=SIDE, format="rgb24").to_ndarray()
            begin, until = (round((t - first) / CLOCK) * CLOCK for t in (time, end_of(frame, stream, time)))
            yield picture, begin, until
