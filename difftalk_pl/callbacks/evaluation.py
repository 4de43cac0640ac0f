"""Scores of a test run: results.json, a contact sheet a clip, and the same numbers on every logger."""

import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger

from difftalk_pl.callbacks.sheets import contact_sheet, save_picture, to_pixels
from difftalk_pl.data.clips import versions
from difftalk_pl.metrics.opening import correlation
from difftalk_pl.metrics.scores import AVERAGED, MEASURES, FrameScores, frame_scores
from difftalk_pl.models.perceptual import Network
from difftalk_pl.pretrained import MissingWeights
from difftalk_pl.stages.perceptual import PerceptualDistance

log = logging.getLogger(__name__)

GROUND_TRUTH = "ground truth"
LPIPS_OPTION = "`--trainer.callbacks+=Evaluation --trainer.callbacks.lpips={} --trainer.callbacks.lpips_weights=FILE`"


class Evaluation(L.Callback):
    """Measures every method that `test_step` returns, and the ground truth itself, frame by frame.

    Of several in trainer.callbacks the last one measures and the others do nothing: one that is added with `callbacks+`
    takes the place of the one in the defaults, whose single settings cannot be changed within a list.

    Args:
        columns: how many moments a contact sheet shows.
        every: frames between them.
        sheets: of how many clips.
        lpips: the network of the perceptual measure; without its weights a warning says how to get them, and the
            measure is null in results.json. null does not measure it.
        lpips_weights: its file; without one, the published file in $TORCH_HOME/hub/checkpoints.
    """

    def __init__(
        self,
        columns: int = 16,
        every: int = 2,
        sheets: int = 4,
        lpips: Network | None = "alex",
        lpips_weights: Path | None = None,
    ) -> None:
        self.columns, self.every, self.sheets = columns, every, sheets
        self.lpips, self.lpips_weights = lpips, lpips_weights
        self.distance: PerceptualDistance | None = None
        self.lpips_protocol: dict[str, str] | None = None
        self.scores: dict[str, FrameScores] = {}
        self.pictures: dict[str, dict[str, list[np.ndarray]]] = {}

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.scores, self.pictures = {}, {}
        if self._replaced(trainer):
            return
        self._load_lpips(pl_module.device, speaks=trainer.is_global_zero)
        if seen := _seen_in_training(trainer, pl_module):
            log.warning("tested on people that the model was trained on: %s", ", ".join(seen))

    def _replaced(self, trainer: L.Trainer) -> bool:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        return self is not [callback for callback in callbacks if isinstance(callback, Evaluation)][-1]

    def _load_lpips(self, device: torch.device, speaks: bool) -> None:
        """Published weights may be absent, a file that was named may not. Raises UserError for that."""
        self.distance, self.lpips_protocol = None, None
        if self.lpips is None:
            return
        option = LPIPS_OPTION.format(self.lpips)
        try:
            self.distance = PerceptualDistance(self.lpips, self.lpips_weights, option).to(device)
        except MissingWeights as missing:
            if self.lpips_weights is not None:
                raise
            self.lpips_protocol = {"network": self.lpips, "not_measured": str(missing)}
            if speaks:
                log.warning("LPIPS is not measured: %s", missing)
        else:
            self.lpips_protocol = {**self.distance.describe(), "mouth": "mean of the distance map where the mask is 1"}

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if self._replaced(trainer):
            return
        names = [clip.name for clip in trainer.datamodule.windows["test"].clips]  # type: ignore[attr-defined]
        clips = [names.index(name) for name in batch["clip"]]
        for method, frames in {GROUND_TRUTH: batch["image"], **outputs}.items():
            if method not in self.scores:
                self.scores[method] = FrameScores().to(pl_module.device)
            layers = None if self.distance is None else self.distance.layers(frames, batch["image"])
            scores = frame_scores(frames, batch["image"], batch.get("mask"), batch.get("all_landmarks"), layers)
            self.scores[method].update(clips, batch["frame"], scores)
        self._keep_pictures(batch, outputs)

    def _keep_pictures(self, batch: Any, outputs: dict[str, torch.Tensor]) -> None:
        shown = {"true": batch["image"]} | {key: batch[key] for key in ("masked", "reference") if key in batch}
        for number, (clip, frame) in enumerate(zip(batch["clip"], batch["frame"].tolist())):
            full = clip not in self.pictures and len(self.pictures) >= self.sheets
            if full or frame % self.every or frame >= self.columns * self.every:
                continue
            rows = self.pictures.setdefault(clip, {})
            for name, frames in {**shown, **outputs}.items():
                rows.setdefault(name, []).append(to_pixels(frames[number]))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._replaced(trainer):
            return
        windows = trainer.datamodule.windows["test"]  # type: ignore[attr-defined]
        names = [clip.name for clip in windows.clips]
        tables = {method: scores.compute().cpu() for method, scores in self.scores.items()}
        if not trainer.is_global_zero:
            return
        methods = {method: summarise(rows, names) for method, rows in tables.items()}
        run = Path(trainer.default_root_dir)
        sheets = [
            save_picture(run / "samples" / f"test_{clip}.png", contact_sheet(list(rows.items())))
            for clip, rows in self.pictures.items()
        ]
        content = {"methods": methods, "protocol": protocol(trainer, pl_module), "versions": versions() | software()}
        content["protocol"]["lpips"] = self.lpips_protocol
        scored = {clip for method in methods.values() for clip in method["per_clip"]}
        content["clips"] = {"scored": len(scored), "not_scored": sorted({*names, *windows.refused} - scored)}
        content["clips"]["seen_in_training"] = _seen_in_training(trainer, pl_module)
        aside = run / ".results.json.tmp"
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        aside.replace(run / "results.json")
        self._log(trainer, methods, sheets)

    def _log(self, trainer: L.Trainer, methods: dict[str, Any], sheets: list[Path]) -> None:
        numbers = {
            f"test/{method.replace(' ', '_')}/{measure}": value
            for method, summary in methods.items()
            for measure, value in summary["overall"].items()
            if value is not None
        }
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
            if isinstance(logger, WandbLogger) and sheets:
                logger.log_image("test/samples", [str(path) for path in sheets])


def summarise(rows: torch.Tensor, names: list[str]) -> dict[str, Any]:
    """Means over a clip's frames, and their means over clips; null where a measure does not apply or is infinite.

    `undefined` counts the clips that a mean over clips leaves out for that reason.
    """
    per_clip: dict[str, dict[str, float | None]] = {}
    for number in rows[:, 0].unique().long().tolist():
        frames = rows[rows[:, 0] == number, 2:]
        values = {name: frames[:, MEASURES.index(name)].mean().item() for name in AVERAGED}
        opening = [frames[:, MEASURES.index(name)] for name in ("opening", "true_opening")]
        values["opening_correlation"] = correlation(*opening)
        per_clip[names[number]] = {**{key: _finite(value) for key, value in values.items()}, "frames": len(frames)}
    overall: dict[str, float | None] = {}
    undefined: dict[str, int] = {}
    for measure in (*AVERAGED, "opening_correlation"):
        known = [value for clip in per_clip.values() if (value := clip[measure]) is not None]
        overall[measure] = float(np.mean(known)) if known else None
        undefined[measure] = len(per_clip) - len(known)
    return {"overall": overall, "undefined": undefined, "per_clip": per_clip}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _seen_in_training(trainer: L.Trainer, pl_module: L.LightningModule) -> list[str] | None:
    """None where nothing says who the weights were trained on: an exported folder does not."""
    trained_on = getattr(pl_module, "trained_on", None)
    tested = trainer.datamodule.identities("test")  # type: ignore[attr-defined]
    return None if trained_on is None else sorted(set(tested) & set(trained_on))


def software() -> dict[str, str]:
    """Versions of the packages that generate and measure."""
    return {name: importlib.metadata.version(name) for name in ("torch", "lightning", "diffusers", "torchmetrics")}


def protocol(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
    """What the numbers were made under."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    sampler = getattr(pl_module, "sampler", None)
    return {
        "frame_size": data.frame_size,
        "fps": 25,
        "data_range": 2.0,
        "ssim": "Gaussian window 11, sigma 1.5",
        "mask": data.mask.name,
        "features": data.features,
        "min_reference_gap": data.rule.min_gap,
        "frames_per_clip": data.frames_per_clip["test"],
        "mean": "over a clip's frames, then over clips",
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "sampler": vars(sampler) if sampler is not None else None,
        "seed": data.seed,
        "weights": getattr(pl_module, "weights_hash", lambda: None)(),
        "codec": getattr(getattr(pl_module, "codec", None), "hash", None),
    }
