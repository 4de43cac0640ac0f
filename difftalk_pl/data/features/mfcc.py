"""The feature kind mfcc: 26 cepstral coefficients every 20 ms, those of python_speech_features."""

import math

import numpy as np

from difftalk_pl.data.features.kinds import FeatureKind
from difftalk_pl.data.features.windows import RATE, STEP

COEFFICIENTS = 26
WINDOW = 400  # samples, 25 ms
PIECE = 3000  # windows that are computed at once


def normalised_mfcc(samples: np.ndarray) -> np.ndarray:
    """Compute the cheapest features, normalised per clip, (S, 26); step s is centred on s * 20 ms.

    A dither of one unit of the 16 bit scale gives digital silence a finite energy. Each coefficient has the clip's mean
    subtracted and is divided by its deviation over the clip (at least 1, so that silence stays flat).
    """
    dithered = samples + np.random.default_rng(0).standard_normal(len(samples))
    values = coefficients(np.pad(dithered, WINDOW // 2, mode="reflect"), STEP)[: len(samples) // (2 * STEP) * 2]
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1.0)


def coefficients(samples: np.ndarray, step: int) -> np.ndarray:
    """Compute the library's MFCC of samples (N,), one row every `step` samples, in pieces that bound the memory.

    A piece begins one row early, because pre-emphasis takes the sample before a window, too.

    Returns:
        (S, 26) float64.
    """
    from python_speech_features import mfcc

    rows = 1 + max(0, math.ceil((len(samples) - WINDOW) / step))
    pieces = []
    for first in range(0, rows, PIECE):
        start, end = max(first - 1, 0) * step, (first + PIECE - 1) * step + WINDOW
        pieces.append(mfcc(samples[start:end], RATE, winstep=step / RATE, numcep=COEFFICIENTS)[min(first, 1) :])
    return np.concatenate(pieces)


MFCC = FeatureKind("mfcc", COEFFICIENTS, normalised_mfcc)


def open_kind(kind: str, models: object) -> FeatureKind:
    """Return the kind; it needs no network."""
    return MFCC
