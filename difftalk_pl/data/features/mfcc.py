"""The feature kind mfcc: 26 cepstral coefficients every 20 ms."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

import numpy as np

from difftalk_pl.data.features.windows import RATE, STEP, steps_of

HALF_WINDOW = 200  # samples, 12.5 ms
PART = 10 * RATE  # samples whose coefficients are computed at a time, so that memory does not grow with the length


class MFCC:
    """26 cepstral coefficients, normalised per clip: the cheapest features, and the input of DeepSpeech.

    The coefficients are those of python_speech_features with its defaults, 25 ms windows. A dither of one unit of the
    16 bit scale gives digital silence a finite energy. Each coefficient has the clip's mean subtracted and is divided
    by its deviation over the clip (at least 1, so that silence stays flat).
    """

    name = "mfcc"
    channels = 26
    model = None

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (2T, 26) float32 of samples (N,) int16 at 16 kHz; step s is centred on s * 20 ms."""
        if (steps := steps_of(samples)) == 0:
            return np.zeros((0, self.channels), np.float32)
        coefficients = np.concatenate(list(_coefficients(_dithered(samples))))[:steps]
        deviation = np.maximum(coefficients.std(axis=0), 1.0)
        return ((coefficients - coefficients.mean(axis=0)) / deviation).astype(np.float32)


def _dithered(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the dithered sound in parts, float64, mirrored at both ends so that windows are centred on their times."""
    rng = np.random.default_rng(0)
    starts = range(0, len(samples) - HALF_WINDOW, PART)  # none so close to the end that it could not be mirrored
    for start, end in zip_longest(starts, starts[1:], fillvalue=len(samples)):
        part = samples[start:end] + rng.standard_normal(end - start)
        yield np.pad(part, (HALF_WINDOW * (start == 0), HALF_WINDOW * (end == len(samples))), mode="reflect")


def _coefficients(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the library's coefficients of every 20 ms, (steps, 26) float64, as of the whole sound."""
    from python_speech_features import mfcc

    rest, known = np.zeros(0), 0
    for part in parts:
        rest = np.concatenate([rest, part])
        steps = (len(rest) - 2 * HALF_WINDOW) // STEP + 1
        end = (steps - 1) * STEP
        yield mfcc(rest[: end + 2 * HALF_WINDOW], RATE, winstep=STEP / RATE, numcep=MFCC.channels)[known:]
        rest, known = rest[end:], 1  # the last step comes again: pre-emphasis looks a sample back


def open_kind(kind: str, models: object) -> MFCC:
    """Return the kind; it needs no model."""
    return MFCC()
