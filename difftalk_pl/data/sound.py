"""The sound of a file on the clock of its picture: whole, or as a stream that holds next to nothing."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from difftalk_pl.data.media import MediaError, audio_stream, clock_zero, media_errors, open_file, time_of

RATE = 16000
HOLE = Fraction(1, 50)  # s; a larger jump in the clock of the sound is a hole, smaller ones are rounding
SILENCE = 65536  # samples of silence in one piece


class SoundReader:
    """The first audio track, mixed to mono, a few samples at a time: sample n is heard at n / rate on the clock of
    `read_frames`.

    A track that starts late is preceded by silence, one that starts before zero is cut; a hole in the track (lost
    packets) is silence, so that what follows it stays where it belongs. Where a track jumps back, what came first
    stays.

    Raises:
        MediaError: unreadable or no audio track; from `take`: damaged, or a track without any sound.
    """

    def __init__(self, path: str | Path, rate: int = RATE) -> None:
        self._container = open_file(path)
        try:
            audio_stream(self._container, path)
        except MediaError:
            self.close()
            raise
        self._pieces = _unbroken(self._container, path, rate)
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


def read_audio(path: str | Path, rate: int = RATE) -> np.ndarray:
    """All that a `SoundReader` gives, up to the end of the track.

    Returns:
        (N,) int16

    Raises:
        MediaError: unreadable or no audio track.
    """
    with SoundReader(path, rate) as reader:
        return np.concatenate(list(reader.pieces()))


def _unbroken(container: InputContainer, path: str | Path, rate: int) -> Iterator[np.ndarray]:
    """Pieces of sound, (n,) int16, each beginning where the one before it ended, from time zero on."""
    position = 0
    for start, samples in _placed(container, path, rate):
        for gap in range(position, start, SILENCE):
            yield np.zeros(min(SILENCE, start - gap), np.int16)
        position = max(position, start)
        fresh = samples[position - start :]
        position += len(fresh)
        yield fresh


def _placed(container: InputContainer, path: str | Path, rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """Sound as it is decoded: the number of the first sample, and (n,) int16."""
    zero, expected, place = clock_zero(container), None, 0
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    with media_errors(path, "damaged"):
        for frame in container.decode(audio_stream(container, path)):
            time = time_of(frame, expected or Fraction(0))
            if expected is None or abs(time - expected) > HOLE:
                if expected is not None:
                    yield place, _resampled(resampler, None)
                    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
                place = round((time - zero) * rate)
            samples = _resampled(resampler, frame)
            yield place, samples
            place += len(samples)
            expected = time + Fraction(frame.samples, frame.sample_rate)
        if expected is None:
            raise MediaError(f"{path}: the audio track holds no sound")
        yield place, _resampled(resampler, None)


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> np.ndarray:
    """(n,) int16; without a frame, what the resampler still holds."""
    return np.concatenate([np.zeros(0, np.int16), *(out.to_ndarray()[0] for out in resampler.resample(frame))])
