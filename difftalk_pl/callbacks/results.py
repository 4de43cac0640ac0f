"""results.json: means over clips with their intervals, what failed and why, and the protocol it was measured under."""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftalk_pl.evaluation.bootstrap import interval

if TYPE_CHECKING:
    from difftalk_pl.evaluation.judge import ClipScore

FORMAT = 2
HASH_DIGITS = 12
COMPARED = ("data", "measures")  # parts of a protocol that numbers have to share
SEED = "seed"  # key of a protocol: it chooses among draws of one protocol
FILE = "file"  # another: a file's name changes no number, and the hash of its weights stands beside it
SOFTWARE = ("torch", "lightning", "diffusers", "torchmetrics")


def summarise(scores: Mapping[str, "ClipScore"], frames: Mapping[str, int]) -> dict[str, Any]:
    """One method of results.json: means over the clips that have a finite value, and what they leave out.

    `undefined` counts the clips that a mean leaves out for whatever reason, the failed ones included; `failed` names
    those and why. A clip of which nothing could be measured stands in `per_clip` like all others, with nulls.

    Args:
        scores: by clip.
        frames: how many frames of each clip were compared.
    """
    measures = list(dict.fromkeys(measure for score in scores.values() for measure in score.values))
    per_clip: dict[str, dict[str, float | None]] = {}
    failed: dict[str, dict[str, str]] = {}
    for clip, score in scores.items():
        values = {measure: _finite(score.values.get(measure)) for measure in measures}
        per_clip[clip] = {**values, "frames": frames[clip]}
        for measure, reason in score.failed.items():
            failed.setdefault(measure, {})[clip] = reason
    known = {name: [value for clip in per_clip.values() if (value := clip[name]) is not None] for name in measures}
    return {
        "overall": {name: math.fsum(values) / len(values) if values else None for name, values in known.items()},
        "interval": {name: _interval(values) for name, values in known.items()},
        "undefined": {name: len(scores) - len(values) for name, values in known.items()},
        "failed": failed,
        "per_clip": per_clip,
        "curves": {clip: score.curve for clip, score in scores.items() if score.curve is not None},
    }


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Equal for protocols under which numbers are comparable: 12 hex digits of the sha256 of the JSON of what is
    compared."""
    text = json.dumps(compared(protocol), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def compared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers have to share: the data and the measures, without seeds and names of files at any depth. How frames
    were generated is not among it: that is what a comparison is about. A protocol of format 1 has no such parts, and
    counts as a whole."""
    parted = all(part in protocol for part in COMPARED)
    return _bare({part: protocol[part] for part in COMPARED} if parted else protocol)


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _bare(inner) for key, inner in value.items() if key not in (SEED, FILE)}
    return value


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Written aside and then renamed: a file under this name is whole. NaN and infinity are no JSON: ValueError."""
    text = json.dumps(content, indent=2, allow_nan=False, default=str) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def software() -> dict[str, str]:
    """Versions of the packages that generate and measure."""
    return {name: importlib.metadata.version(name) for name in SOFTWARE}


def _interval(values: list[float]) -> list[float] | None:
    bounds = interval(values) if values else None
    return None if bounds is None else [float(bound) for bound in bounds]


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
