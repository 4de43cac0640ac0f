"""What the numbers of an evaluation were made of: the content of results.json."""

from collections.abc import Mapping
from typing import Any

import lightning as L

from difftalk_pl.callbacks.results import FORMAT, protocol_hash, software
from difftalk_pl.data.clips import versions
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.evaluation.judging import Verdict
from difftalk_pl.revision import revision
from difftalk_pl.training.weights import plain


def results(
    trainer: L.Trainer,
    pl_module: L.LightningModule,
    side: str,
    measures: Mapping[str, Any],
    methods: Mapping[str, Any],
    verdict: Verdict,
) -> dict[str, Any]:
    """results.json of a run. The hash is of the protocol alone: the same for two models that were measured alike."""
    how = protocol(trainer, pl_module, side, measures)
    clips = {
        "scored": len(verdict.frames) - len(verdict.reasons),
        "failed": len(verdict.reasons),
        "not_scored": sorted(verdict.reasons),
        "reasons": verdict.reasons,
        "near_references": near_references(trainer, side, verdict.frames),
        "seen_in_training": seen_in_training(trainer, pl_module, side),
    }
    return {
        "format": FORMAT,
        "methods": dict(methods),
        "protocol": how,
        "protocol_hash": protocol_hash(how),
        "model": model(trainer, pl_module),
        "versions": versions() | software(),
        "clips": clips,
    }


def protocol(
    trainer: L.Trainer, pl_module: L.LightningModule, side: str, measures: Mapping[str, Any]
) -> dict[str, Any]:
    """The data and the measures, which numbers have to share to be comparable; and how frames were generated."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    sampler = getattr(pl_module, "sampler", None)
    references = {"min_reference_gap": data.rule.min_gap, "reference_seed": data.seed}
    return {
        "data": {
            "crop": "as prepared",
            "landmarks": "as prepared",
            "frame_size": data.frame_size,
            "fps": FPS,
            "mask": data.mask.name,
            "frames_per_clip": data.frames_per_clip[side],
            "mean": "over a clip's frames, then over clips",
        },
        "measures": dict(measures),
        "generation": None if sampler is None else plain(sampler) | references,
    }


def model(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
    """Whose numbers they are."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "weights": getattr(pl_module, "weights_hash", lambda: None)(),
        "codec": getattr(getattr(pl_module, "codec", None), "hash", None),
        "features": data.features,
        "precision": str(trainer.precision),
        "revision": revision(),
    }


def seen_in_training(trainer: L.Trainer, pl_module: L.LightningModule, side: str) -> list[str] | None:
    """None where nothing says who the weights were trained on: an exported folder does not."""
    trained_on = getattr(trainer.datamodule, "trained_on", None)  # type: ignore[attr-defined]
    judged = {clip.identity for clip in trainer.datamodule.sides[side]}  # type: ignore[attr-defined]
    return None if trained_on is None else sorted(judged & set(trained_on))


def near_references(trainer: L.Trainer, side: str, judged: Mapping[str, int]) -> dict[str, int]:
    """How many of a clip's judged frames had no reference far enough away and took the furthest one."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if data.contents == "frames":
        return {}
    clips = {clip.name: clip.frames for clip in data.sides[side] if clip.name in judged}
    near = {name: data.rule.without_partner(frames, judged[name]) for name, frames in clips.items()}
    return {name: frames for name, frames in near.items() if frames}
