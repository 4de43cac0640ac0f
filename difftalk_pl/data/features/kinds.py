"""The kinds of speech features by name, the networks that learned kinds need, and MFCC.

A new kind is a module with a function `open_kind(kind, models)`, entered in MODULES.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from difftalk_pl.data.features.windows import FPS, RATE, STEP, STEPS_PER_FRAME

MODULES = {
    "deepspeech": "difftalk_pl.data.features.deepspeech",
    "wav2vec2": "difftalk_pl.data.features.huggingface",
    "hubert": "difftalk_pl.data.features.huggingface",
}
Kind = Literal["mfcc", "deepspeech", "wav2vec2", "hubert"]
KINDS = get_args(Kind)
COEFFICIENTS = 26  # of MFCC
WINDOW = 400  # samples that a step of MFCC takes, 25 ms
PIECE = 3000  # steps of MFCC that are computed at once


@dataclass(frozen=True)
class FeatureModel:
    """The network that made learned features: equal hashes mean equal features."""

    name: str = field(compare=False)
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]}…)"


@dataclass(frozen=True)
class FeatureKind:
    """Speech features of a whole clip. compute: (N,) int16 at 16 kHz -> 2T steps or more, (S, C), with T = N // 640."""

    name: str
    channels: int  # numbers a step
    compute: Callable[[np.ndarray], np.ndarray]
    model: FeatureModel | None = None  # None for a kind that was not learned

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (2T, C) float32 of samples (N,) int16 at 16 kHz."""
        steps = len(samples) * FPS // RATE * STEPS_PER_FRAME
        return self.compute(samples)[:steps].astype(np.float32) if steps else np.zeros((0, self.channels), np.float32)


@dataclass(frozen=True)
class SpeechModels:
    """Where learned kinds find their networks."""

    deepspeech: Path | None = None  # frozen graph of DeepSpeech 0.1.0
    speech_model: str | None = None  # folder or hub name of a wav2vec 2.0 or HuBERT
    speech_layer: int | None = None  # layer whose output is taken, 0 for the input of the first; the last by default
    device: str = "auto"  # cpu, cuda, or auto


@lru_cache
def open_features(kind: str, models: SpeechModels = SpeechModels()) -> FeatureKind:
    """Open a kind; a network is loaded once a process. Raises UserError where it is missing or does not fit."""
    return import_module(MODULES[kind]).open_kind(kind, models) if kind in MODULES else MFCC


def normalised_mfcc(samples: np.ndarray) -> np.ndarray:
    """Compute the cheapest features, normalised per clip, (S, 26); step s is centred on s * 20 ms.

    A dither of one unit of the 16 bit scale gives digital silence a finite energy. Each coefficient has the clip's mean
    subtracted and is divided by its deviation over the clip (at least 1, so that silence stays flat).
    """
    dithered = samples + np.random.default_rng(0).standard_normal(len(samples))
    values = coefficients(np.pad(dithered, WINDOW // 2, mode="reflect"), STEP)[: len(samples) // (2 * STEP) * 2]
    return (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1.0)


def coefficients(samples: np.ndarray, step: int) -> np.ndarray:
    """Compute the MFCC of python_speech_features, one row every `step` samples (N,): (S, 26) float64.

    Pieces bound the memory; each begins one row early, because pre-emphasis takes the sample before a window, too.
    """
    from python_speech_features import mfcc

    pieces = []
    for first in range(0, 1 + max(0, math.ceil((len(samples) - WINDOW) / step)), PIECE):
        start, end = max(first - 1, 0) * step, (first + PIECE - 1) * step + WINDOW
        pieces.append(mfcc(samples[start:end], RATE, winstep=step / RATE, numcep=COEFFICIENTS)[min(first, 1) :])
    return np.concatenate(pieces)


MFCC = FeatureKind("mfcc", COEFFICIENTS, normalised_mfcc)
