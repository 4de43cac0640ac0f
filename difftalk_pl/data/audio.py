"""Waveform to feature steps at 50 Hz, one class a feature kind, and the windows that are cut from them.

A new kind is a class with `name`, `channels` and `__call__`, registered in `FEATURES`.
"""

from typing import Protocol

import numpy as np

FPS = 25
RATE = 16000
STEPS_PER_FRAME = 2  # features come every 20 ms, frames every 40 ms
WINDOW = 16  # steps around a frame, 0.32 s
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
        from python_speech_features import mfcc

        steps = len(samples) * FPS // RATE * STEPS_PER_FRAME
        if steps == 0:
            return np.zeros((0, self.channels), np.float32)
        dither = np.random.default_rng(0).standard_normal(len(samples))
        half_window = 200  # 12.5 ms: the window of a step is centred on the step's time
        signal = np.pad(samples + dither, half_window, mode="reflect")
        coefficients = mfcc(signal, RATE, numcep=self.channels)[::2][:steps]
        spread = np.maximum(coefficients.std(axis=0), 1.0)
        return ((coefficients - coefficients.mean(axis=0)) / spread).astype(np.float32)


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
