"""The kinds of speech features by name, and the networks that learned kinds need.

A new kind is a module with a function `open_kind(kind, models)`, entered in KINDS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np

from difftalk_pl.data.features.windows import FPS, RATE, STEPS_PER_FRAME
from difftalk_pl.errors import UserError

KINDS = {  # name -> module
    "mfcc": "difftalk_pl.data.features.mfcc",
    "deepspeech": "difftalk_pl.data.features.deepspeech",
    "wav2vec2": "difftalk_pl.data.features.huggingface",
    "hubert": "difftalk_pl.data.features.huggingface",
}
OPTIONS = {"deepspeech": "deepspeech", "wav2vec2": "speech_model", "hubert": "speech_model"}  # fields of SpeechModels


@dataclass(frozen=True)
class FeatureModel:
    """The network that made learned features: equal hashes mean equal features; `channels` are numbers a step."""

    name: str = field(compare=False)
    sha256: str
    channels: int

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.sha256[:12]}…)"


@dataclass(frozen=True)
class FeatureKind:
    """Speech features of a whole clip.

    Args:
        channels: numbers a step.
        compute: (N,) int16 at 16 kHz -> 2T steps or more, (S, C), with T = N // 640 frames.
        model: the network; None for a kind that was not learned.
    """

    name: str
    channels: int
    compute: Callable[[np.ndarray], np.ndarray]
    model: FeatureModel | None = None

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the features (2T, C) float32 of samples (N,) int16 at 16 kHz."""
        steps = len(samples) * FPS // RATE * STEPS_PER_FRAME
        return self.compute(samples)[:steps].astype(np.float32) if steps else np.zeros((0, self.channels), np.float32)


@dataclass(frozen=True)
class SpeechModels:
    """Where learned kinds find their networks.

    Args:
        deepspeech: frozen graph of DeepSpeech 0.1.0.
        speech_model: folder or hub name of a wav2vec 2.0 or HuBERT.
        speech_layer: layer whose output is taken, 0 for the input of the first; the last by default.
        device: cpu, cuda, or auto.
    """

    deepspeech: Path | None = None
    speech_model: str | None = None
    speech_layer: int | None = None
    device: str = "auto"


def check_kinds(features: Sequence[str] | str) -> tuple[str, ...]:
    """Return the value of --features as a tuple. Raises UserError for an unknown kind."""
    kinds = (features,) if isinstance(features, str) else tuple(features)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"--features {unknown[0]}: no such kind; expected {', '.join(KINDS)}")
    return kinds


@lru_cache
def open_features(kind: str, models: SpeechModels = SpeechModels()) -> FeatureKind:
    """Open a kind; a network is loaded once a process. Raises UserError where it is missing or does not fit."""
    return import_module(KINDS[kind]).open_kind(kind, models)
