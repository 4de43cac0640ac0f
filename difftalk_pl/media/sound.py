"""The sound of a file on the clock of its picture: whole, or as a stream that holds next to nothing."""

from collections.abc import Iterator
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard

from difftalk_pl.media.containers import MediaError, audio_stream, clock_zero, media_errors, open_file, time_of
from difftalk_pl.media.seeking import check_span

RATE = 16000
HOLE = Fraction(1, 50)  # s; a larger jump in the clock of the sound is a hole, smaller ones are rounding
LEAD = Fraction(1, 5)  # s that are resampled before the first sample that is wanted
SILENCE = 65536  # samples of silence in one piece


class SoundReader:
    """The first audio track, mixed to mono, a few samples at a time: sample n is heard at n / rate on the clock of
    `read_frames`.

    A track that starts late is preceded by silence, one that starts before zero is cut; a hole in the track (lost
    packets) is silence, so that what follows it stays where it belongs. Where a track jumps back, what came first
    stays.

    Args:
        start: s; the first sample is then number round(start * rate) of the whole, and all are as they are there.

    Raises:
        MediaError: unreadable or no audio track; from `take`: damaged, or a track without any sound.
    """

    def __init__(self, path: str | Path, rate: int = RATE, start: float = 0.0) -> None:
        self._container = open_file(path)
        try:
            audio_stream(self._container, path)
        except MediaError:
            self.close()
            raise
        self._pieces = _unbroken(self._container, path, rate, round(start * rate))
        self._rest = np.zeros(0, np.int16)

    def take(self, n: int) -> np.ndarray:
        """The next n samples, (n,) int16; silence after the end."""
        taken, count = [self._rest], len(self._rest)
        while count < n and (piece := next(self._pieces, None)) is not None:
            taken.append(piece)
            count += len(piece)
        taken.append(np.zeros(max(n - count, 0), np.int16))
        sound = np.concatenate(taken)
        self._rest = sound[n:].copy()  # a view would keep all of it
        return sound[:n]

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> "SoundReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pieces(self) -> Iterator[np.ndarray]:
        """All that follows, in pieces of (n,) int16 of any length, up to the end."""
        rest, self._rest = self._rest, self._rest[:0]
        yield rest
        yield from self._pieces


def read_audio(path: str | Path, rate: int = RATE, start: float = 0.0, stop: float | None = None) -> np.ndarray:
    """All that a `SoundReader` gives, up to the end of the track or to `stop`: samples round(start * rate) to
    round(stop * rate) of the whole. A span may go beyond the end by a second, and is shorter then.

    Returns:
        (N,) int16

    Raises:
        MediaError: unreadable, no audio track, or there is no such span in it.
    """
    with SoundReader(path, rate, start) as reader:
        if stop is None and start == 0:
            return np.concatenate(list(reader.pieces()))
        wanted = None if stop is None else round(stop * rate) - round(start * rate)
        sound = _first(reader.pieces(), wanted)
    if wanted is None or len(sound) < wanted:
        check_span(path, start, stop, start + len(sound) / rate, "sound")
    return sound


def _first(pieces: Iterator[np.ndarray], n: int | None) -> np.ndarray:
    """The first n samples, or all that there are."""
    taken, count = [], 0
    while (n is None or count < n) and (piece := next(pieces, None)) is not None:
        taken.append(piece)
        count += len(piece)
    return np.concatenate(taken)[:n]


def _unbroken(container: InputContainer, path: str | Path, rate: int, position: int = 0) -> Iterator[np.ndarray]:
    """Pieces of sound, (n,) int16, each beginning where the one before it ended, from sample `position` on."""
    for start, samples in _placed(container, path, rate, position):
        for gap in range(position, start, SILENCE):
            yield np.zeros(min(SILENCE, start - gap), np.int16)
        position = max(position, start)
        fresh = samples[position - start :]
        position += len(fresh)
        yield fresh


def _placed(container: InputContainer, path: str | Path, rate: int, first: int) -> Iterator[tuple[int, np.ndarray]]:
    """Sound as it is decoded: the number of the first sample, and (n,) int16. What ends before sample `first` is
    decoded, because decoders remember, and not resampled."""
    stream = audio_stream(container, path)
    _pass_over_others(container, stream)
    zero, expected = clock_zero(container), None
    part = _Resampled(rate, 0, first)
    with media_errors(path, "damaged"):
        for frame in container.decode(stream):
            time = time_of(frame, expected or Fraction(0))
            if expected is None or abs(time - expected) > HOLE:
                if expected is not None:
                    yield part.rest()
                part = _Resampled(rate, round((time - zero) * rate), first)
            yield part.take(frame)
            expected = time + Fraction(frame.samples, frame.sample_rate)
        if expected is None:
            raise MediaError(f"{path}: the audio track holds no sound")
        yield part.rest()


def _pass_over_others(container: InputContainer, stream: AudioStream) -> None:
    """The pictures need not come from the disk."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


class _Resampled:
    """Sound without a hole at another rate, from just before sample `first` on, sample for sample as if all of it had
    been resampled.

    Args:
        place: number of the first sample.
    """

    def __init__(self, rate: int, place: int, first: int) -> None:
        self.rate, self.place, self.first = rate, place, first
        self._passed = 0  # samples of the source
        self._resampler: av.AudioResampler | None = None

    def take(self, frame: av.AudioFrame) -> tuple[int, np.ndarray]:
        """The number of the first sample, and (n,) int16."""
        begun = frame if self._resampler is not None else self._begin(frame)
        return (self.place, np.zeros(0, np.int16)) if begun is None else self._placed(begun)

    def rest(self) -> tuple[int, np.ndarray]:
        """What the resampler still holds."""
        return self._placed(None)

    def _begin(self, frame: av.AudioFrame) -> av.AudioFrame | None:
        """The frame, or its end, where resampling may begin: a bit early, since the resampler looks around a sample,
        and where samples of both rates meet."""
        rate, before, meet = frame.sample_rate, self._passed, gcd(frame.sample_rate, self.rate)  # times a second
        self._passed += frame.samples
        ahead, lead = -before % (rate // meet), LEAD + Fraction(1, meet)
        if self.place + Fraction(self._passed * self.rate, rate) < self.first - lead * self.rate:
            return None
        if ahead >= frame.samples:
            return None
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=self.rate)
        self.place += (before + ahead) * self.rate // rate
        return _without(frame, ahead)

    def _placed(self, frame: av.AudioFrame | None) -> tuple[int, np.ndarray]:
        parts = [] if self._resampler is None else self._resampler.resample(frame)
        samples = np.concatenate([np.zeros(0, np.int16), *(part.to_ndarray()[0] for part in parts)])
        place, self.place = self.place, self.place + len(samples)
        return place, samples


def _without(frame: av.AudioFrame, n: int) -> av.AudioFrame:
    """A frame without its first n samples."""
    if n == 0:
        return frame
    skip = n if frame.format.is_planar else n * len(frame.layout.channels)
    sound: Any = np.ascontiguousarray(frame.to_ndarray()[:, skip:])
    rest = av.AudioFrame.from_ndarray(sound, format=frame.format.name, layout=frame.layout.name)
    rest.sample_rate, rest.pts, rest.time_base = frame.sample_rate, None, frame.time_base
    return rest
