"""Waveform to feature steps at 50 Hz, one class a feature kind, and the windows that are cut from them.

A new kind is a class with `name`, `channels` and `__call__`, registered in `FEATURES`.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Protocol

import numpy as np

FPS = 25
RATE = 16000
STEPS_PER_FRAME = 2  # features come every 20 ms, frames every 40 ms
WINDOW = 16  # steps around a frame, 0.32 s
STEP = RATE // FPS // STEPS_PER_FRAME  # samples
HALF_WINDOW = 200  # samples, 12.5 ms
PART = 10 * RATE  # samples whose coefficients are computed at a time
AROUND = (4, 3)  # smoothing sees frames i-4 … i+3: slot 4 is the frame itself


class FeatureKind(Protocol):
    """Speech features of a whole clip."""

    name: str
    channels: int

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """(N,) int16 at 16 kHz -> (2T, C) float32 with T = N // 640 frames; step s is centred on s * 20 ms."""
        ...


class MFCC:
    """26 cepstral coefficients, normalised per clip: the cheapest features, and the input of DeepSpeech.

    The coefficients are those of python_speech_features with its defaults (25 ms windows every 10 ms; every second
    one is kept). Two things are added because they serve as features here and not as a network's input: a dither of
    one unit of the 16 bit scale, so that digital silence has a finite energy, and the subtraction of each
    coefficient's mean and division by its deviation over the clip (at least 1, so that silence stays flat).
    """

    name = "mfcc"
    channels = 26

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        steps = len(samples) * FPS // RATE * STEPS_PER_FRAME
        if steps == 0:
            return np.zeros((0, self.channels), np.float32)
        coefficients = np.concatenate(list(_coefficients(_dithered(samples), self.channels)))[:steps]
        spread = np.maximum(coefficients.std(axis=0), 1.0)
        return ((coefficients - coefficients.mean(axis=0)) / spread).astype(np.float32)


def _dithered(samples: np.ndarray) -> Iterator[np.ndarray]:
    """The sound in parts, (n,) float64, dithered and mirrored at both ends by half a window, so that the window of a
    step is centred on its time."""
    rng = np.random.default_rng(0)
    starts = range(0, len(samples) - HALF_WINDOW, PART)  # none so close to the end that it could not be mirrored
    for start, end in zip_longest(starts, starts[1:], fillvalue=len(samples)):
        part = samples[start:end] + rng.standard_normal(end - start)
        around = HALF_WINDOW * (start == 0), HALF_WINDOW * (end == len(samples))
        yield np.pad(part, around, mode="reflect")


def _coefficients(parts: Iterable[np.ndarray], channels: int) -> Iterator[np.ndarray]:
    """The library's coefficients of every 20 ms, (steps, C) float64, as of the whole sound."""
    from python_speech_features import mfcc

    rest, known = np.zeros(0), 0
    for part in parts:
        rest = np.concatenate([rest, part])
        steps = (len(rest) - 2 * HALF_WINDOW) // STEP + 1
        yield mfcc(rest[: (steps - 1) * STEP + 2 * HALF_WINDOW], RATE, winstep=STEP / RATE, numcep=channels)[known:]
        rest, known = rest[(steps - 1) * STEP :], 1  # the last step comes again: pre-emphasis looks a sample back


FEATURES: dict[str, type[FeatureKind]] = {"mfcc": MFCC}


def audio_windows(steps: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The 16 steps around each frame: W[k][t] = D[2k + t - 8], zeros beyond the clip, as AD-NeRF cuts DeepSpeech's.

    The very last step counts as beyond the clip: AD-NeRF drops it, and published models were trained so.

    Args:
        steps: (2T, C).
        frames: frame numbers k, any shape (...), possibly beyond the clip; a number between two frames is a moment
            between them, whose steps are interpolated.

    Returns:
        (..., 16, C) float32; row 8 is at time k / 25 s.
    """
    index = STEPS_PER_FRAME * np.asarray(frames)[..., None] + np.arange(WINDOW) - WINDOW // 2
    below = np.floor(index).astype(int)
    share = (index - below)[..., None].astype(np.float32)
    if not share.any():
        return _take(steps, below)
    return (1 - share) * _take(steps, below) + share * _take(steps, below + 1)


def smoothing_windows(steps: np.ndarray, frames: np.ndarray, around: tuple[int, int] = AROUND) -> np.ndarray:
    """The windows of the frames that the attention over frames sees, by default i-4 … i+3; zero ones beyond the clip.

    Args:
        steps: (2T, C).
        frames: frame numbers, any shape (...).
        around: frames before and after.

    Returns:
        (..., 8, 16, C) float32; slot 4 is the frame itself. Paper, section 3.2; positions as in AD-NeRF.
    """
    seen = np.asarray(frames)[..., None] + np.arange(-around[0], around[1] + 1)
    windows = audio_windows(steps, seen)
    windows[(seen < 0) | (seen >= len(steps) // STEPS_PER_FRAME)] = 0
    return windows


def _take(steps: np.ndarray, index: np.ndarray) -> np.ndarray:
    inside = (index >= 0) & (index < len(steps) - 1)
    rows = np.asarray(steps[np.where(inside, index, 0)], dtype=np.float32)
    rows[~inside] = 0
    return rows
