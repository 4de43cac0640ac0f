"""results.json: means over clips with their intervals, what failed and why, and the protocol it was measured under."""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from difftalk_pl.evaluation.judge import ClipScore
from difftalk_pl.files import replacing

FORMAT = 2
HASH_DIGITS = 12
COMPARED = ("data", "measures")  # parts of a protocol that comparable numbers share
NOT_COMPARED = ("seed", "file")  # keys in them: a draw of one protocol, and the name of a file whose hash is there
SOFTWARE = ("difftalk_pl", "torch", "lightning", "diffusers", "torchmetrics", "dlib-bin", "av")
RESAMPLES = 10_000


class EvaluationResult(NamedTuple):
    """The clips of all processes. methods: by `summarise`; frames: of each clip; reasons: of failed clips."""

    methods: dict[str, dict[str, Any]]
    frames: dict[str, int]
    reasons: dict[str, str]

    def write(self, path: Path, protocol: Mapping[str, Any], clips: Mapping[str, Any], **more: Any) -> None:
        """Write results.json, whole or not at all. `clips`: what else is known of the clips."""
        content = {
            "format": FORMAT,
            "methods": self.methods,
            "protocol": protocol,
            "protocol_hash": protocol_hash(protocol),
            "versions": {name: importlib.metadata.version(name) for name in SOFTWARE},
            "clips": {
                "scored": len(self.frames) - len(self.reasons),
                "failed": len(self.reasons),
                "not_scored": sorted(self.reasons),
                "reasons": self.reasons,
                **clips,
            },
            **more,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            json.dump(content, file, indent=2, allow_nan=False, default=str)
            file.write("\n")


def summarise(scores: Mapping[str, ClipScore], frames: Mapping[str, int]) -> dict[str, Any]:
    """Return one method of results.json: means over the clips that have a finite value, and what they leave out.

    `undefined` counts the clips that a mean leaves out for whatever reason, the failed ones included; `failed` names
    those and why. A clip of which nothing could be measured stands in `per_clip` with nulls.

    Args:
        scores: by clip.
        frames: how many frames of each clip were compared.
    """
    failed: dict[str, dict[str, str]] = {}
    for clip, score in scores.items():
        for measure, reason in score.failed.items():
            failed.setdefault(measure, {})[clip] = reason
    measures = dict.fromkeys(measure for score in scores.values() for measure in score.values)
    known: dict[str, list[float]] = {
        name: [found for one in scores.values() if (found := one.values[name]) is not None] for name in measures
    }
    return {
        "overall": {name: math.fsum(values) / len(values) if values else None for name, values in known.items()},
        "interval": {name: interval(values) for name, values in known.items()},
        "undefined": {name: len(scores) - len(values) for name, values in known.items()},
        "failed": failed,
        "per_clip": {clip: {**score.values, "frames": frames[clip]} for clip, score in scores.items()},
        "curves": {clip: score.curve for clip, score in scores.items() if score.curve is not None},
    }


def interval(values: Sequence[float], confidence: float = 0.95) -> list[float] | None:
    """Return the percentile bootstrap interval of a mean over clips; None for fewer than two.

    Clips are drawn, not frames: frames of one clip are far from independent. Of few clips it is too narrow. Efron and
    Tibshirani, "An Introduction to the Bootstrap", chapter 13.
    """
    if len(values) < 2:
        return None
    numbers, draws = np.asarray(values), np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    return np.quantile(numbers[draws].mean(1), [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Return 12 hex digits that are equal for protocols under which numbers are comparable."""
    text = json.dumps(compared({part: protocol.get(part) for part in COMPARED}), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def compared(part: Any) -> Any:
    """Return a part of a protocol without seeds and file names at any depth. How frames were generated is not compared:
    that is what a comparison is about."""
    if not isinstance(part, Mapping):
        return part
    return {key: compared(value) for key, value in part.items() if key not in NOT_COMPARED}
