"""results.json: means over clips with their intervals, what failed and why, and the protocol it was measured under."""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from difftalk_pl.evaluation.method_judge import ClipScore

FORMAT = 2
HASH_DIGITS = 12
COMPARED = ("data", "measures")  # parts of a protocol that comparable numbers share
NOT_COMPARED = ("seed", "file")  # keys in them: a draw of one protocol, and the name of a file whose hash is there
SOFTWARE = ("difftalk_pl", "torch", "lightning", "diffusers", "torchmetrics", "dlib-bin", "av")
RESAMPLES = 10_000


class EvaluationResult(NamedTuple):
    """The clips of all processes. scores: by method and clip; frames: how many of each; reasons: of failed clips."""

    scores: "dict[str, dict[str, ClipScore]]"
    frames: dict[str, int]
    reasons: dict[str, str]

    def methods(self) -> dict[str, dict[str, Any]]:
        """Return the methods of results.json."""
        return {method: summarise(scores, self.frames) for method, scores in self.scores.items()}

    def content(self, protocol: Mapping[str, Any], clips: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Return results.json. `clips`: what else is known of the clips."""
        counts = {"scored": len(self.frames) - len(self.reasons), "failed": len(self.reasons)}
        failed = {"not_scored": sorted(self.reasons), "reasons": self.reasons}
        return {
            "format": FORMAT,
            "methods": self.methods(),
            "protocol": dict(protocol),
            "protocol_hash": protocol_hash(protocol),
            "versions": {name: importlib.metadata.version(name) for name in SOFTWARE},
            "clips": counts | failed | dict(clips),
            **more,
        }


def summarise(scores: "Mapping[str, ClipScore]", frames: Mapping[str, int]) -> dict[str, Any]:
    """Return one method of results.json: means over the clips that have a finite value, and what they leave out.

    `undefined` counts the clips that a mean leaves out for whatever reason, the failed ones included; `failed` names
    those and why. A clip of which nothing could be measured stands in `per_clip` with nulls.

    Args:
        scores: by clip.
        frames: how many frames of each clip were compared.
    """
    per_clip: dict[str, dict[str, float | None]] = {}
    failed: dict[str, dict[str, str]] = {}
    for clip, score in scores.items():
        finite = {name: value for name, value in score.values.items() if value is not None and math.isfinite(value)}
        per_clip[clip] = {**dict.fromkeys(score.values), **finite, "frames": frames[clip]}
        for measure, reason in score.failed.items():
            failed.setdefault(measure, {})[clip] = reason
    measures = list(dict.fromkeys(measure for score in scores.values() for measure in score.values))
    known = {name: [value for clip in per_clip.values() if (value := clip[name]) is not None] for name in measures}
    return {
        "overall": {name: math.fsum(values) / len(values) if values else None for name, values in known.items()},
        "interval": {name: interval(values) for name, values in known.items()},
        "undefined": {name: len(scores) - len(values) for name, values in known.items()},
        "failed": failed,
        "per_clip": per_clip,
        "curves": {clip: score.curve for clip, score in scores.items() if score.curve is not None},
    }


def interval(values: Sequence[float], confidence: float = 0.95, seed: int = 0) -> list[float] | None:
    """Return the percentile bootstrap interval of a mean over clips; None for fewer than two.

    Clips are drawn, not frames: frames of one clip are far from independent. Of few clips it is too narrow. Efron and
    Tibshirani, "An Introduction to the Bootstrap", chapter 13.
    """
    numbers, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    if len(numbers) < 2:
        return None
    means = [numbers[rng.integers(len(numbers), size=len(numbers))].mean() for _ in range(RESAMPLES)]
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Return 12 hex digits that are equal for protocols under which numbers are comparable."""
    text = json.dumps(compared(protocol), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def compared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return what comparable numbers share: data and measures, without seeds and file names at any depth. How frames
    were generated is not part of it: that is what a comparison is about."""

    def strip(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: strip(inner) for key, inner in value.items() if key not in NOT_COMPARED}

    return strip({part: protocol.get(part) for part in COMPARED})


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically. NaN and infinity are no JSON: ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False, default=str) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
