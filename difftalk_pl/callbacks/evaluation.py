"""Scores of generated clips: in test, in validate, and in the validations of fit."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.sync import SyncCrop
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.clip_scores import ClipScores
from difftalk_pl.evaluation.judge import Judge, Measuring
from difftalk_pl.evaluation.results import EvaluationResult
from difftalk_pl.generation.steps import ClipGeneration
from difftalk_pl.models.perceptual import Network
from difftalk_pl.revision import revision
from difftalk_pl.training.weights import plain

log = logging.getLogger(__name__)

RESULTS = {"test": "results.json", "validate": "results_val.json"}


class Evaluation(L.Callback):
    """Measures the frames that the test step and the validation step of the second loader return.

    `test` and `validate` write results.json and results_val.json. The stage's own method is logged under test/MEASURE,
    others under test/METHOD/MEASURE; in validations of fit under val/, in the command `validate` under validate/. Of
    several in trainer.callbacks the last one measures: one added with `callbacks+` replaces that of the defaults.

    Args:
        lpips: network of the perceptual measure; null does not measure it.
        lpips_weights: its file; without one, the published file in $TORCH_HOME/hub/checkpoints.
        syncnet: the published syncnet_v2.model, or a checkpoint or folder of SyncNetTraining.
        sync_crop: what SyncNet sees of a frame.
        faces: landmark distance, identity and motion, by dlib.
    """

    def __init__(
        self,
        lpips: Network | None = "alex",
        lpips_weights: Path | None = None,
        syncnet: Path | None = None,
        sync_crop: SyncCrop = "face_crop",
        faces: bool = True,
    ) -> None:
        self.measuring = Measuring(lpips, lpips_weights, syncnet, sync_crop, faces)
        self.judge: Judge | None = None
        self.scores: ClipScores | None = None  # of the evaluation that runs
        self.result: EvaluationResult | None = None  # of the last one, of all processes

    def setup(self, trainer: Any, pl_module: L.LightningModule, stage: str) -> None:
        """Open the networks that measure before any step, so that a wrong file is reported at once."""
        self.judge = None
        if isinstance(pl_module, ClipGeneration) and stage != "predict" and evaluation_of(trainer) is self:
            self.judge = Judge(self.measuring, trainer.strategy.root_device, warn=trainer.is_global_zero)

    def on_test_epoch_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        clips = trainer.datamodule.evaluation_clips
        self.scores = ClipScores(self.judge, clips) if self.judge is not None and clips else None
        if (
            self.scores
            and trainer.state.fn != "fit"
            and trainer.is_global_zero
            and (seen := _seen_in_training(trainer))
        ):
            log.warning("tested on people that the model was trained on: %s", ", ".join(seen))

    on_validation_epoch_start = on_test_epoch_start

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: int) -> None:
        if self.scores is not None and "failed" in batch:  # a ClipBatch, and no windows of the loss
            self.scores.add(batch, outputs)

    on_validation_batch_end = on_test_batch_end  # type: ignore[assignment]

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the numbers and write results.json. Raises UserError where test or validate could score no clip."""
        if self.judge is None or self.scores is None:
            return
        key = "val" if trainer.state.fn == "fit" else trainer.state.fn.value
        result = self.result = self.scores.finish(pl_module.methods)
        self.scores, methods = None, result.methods
        own = methods[pl_module.method]["overall"] if pl_module.method in methods else {}
        pl_module.log_dict({f"{key}/{measure}": value for measure, value in own.items() if value is not None})
        pl_module.log(f"{key}/failed_clips", float(len(result.reasons)))
        if trainer.is_global_zero:
            _log_methods(trainer, key, {name: found for name, found in methods.items() if name != pl_module.method})
        if key not in RESULTS:
            return
        if trainer.is_global_zero:
            seen, near = _seen_in_training(trainer), _near_references(trainer.datamodule, result.frames)
            path, about = Path(trainer.default_root_dir) / RESULTS[key], _protocol(trainer, self.judge)
            result.write(path, about, {"seen_in_training": seen, "near_references": near}, model=_model(trainer))
            clips = [(name, clip, found) for name, one in methods.items() for clip, found in one["per_clip"].items()]
            for logger in (each for each in trainer.loggers if isinstance(each, WandbLogger) and clips):
                table = [[clip, name, *found.values()] for name, clip, found in clips]
                logger.log_table(f"{key}/clips", ["clip", "method", *clips[0][2]], table, step=log_step(trainer))
        if len(result.reasons) == len(result.frames):
            first = next(iter(result.reasons.values()), "there was no batch")
            raise UserError(f"none of {len(result.frames)} clips could be scored, {first}")

    on_validation_epoch_end = on_test_epoch_end


def evaluation_of(trainer: Any) -> Evaluation | None:
    """Return the trainer's last Evaluation, which is the one that measures."""
    return next((each for each in reversed(trainer.callbacks) if isinstance(each, Evaluation)), None)


def log_step(trainer: Any) -> int:
    """Return the step under which Lightning logs in validation: the number of the batch, where each takes a step."""
    return max(trainer.fit_loop.total_batch_idx, 0) // trainer.accumulate_grad_batches


def _log_methods(trainer: Any, key: str, methods: dict[str, Any]) -> None:
    """Log KEY/METHOD/MEASURE on every logger, and not through `self.log`, which prints each of them."""
    numbers = {
        f"{key}/{method.replace(' ', '_')}/{measure}": value
        for method, summary in methods.items()
        for measure, value in summary["overall"].items()
        if value is not None
    }
    for logger in trainer.loggers:
        logger.log_metrics(numbers, step=log_step(trainer))


def _protocol(trainer: Any, judge: Judge) -> dict[str, Any]:
    """Return the data and the measures, which comparable numbers share; and how frames were generated."""
    data = trainer.datamodule
    sampler = getattr(trainer.lightning_module, "sampler", None)
    references = {"min_reference_gap": data.rule.min_gap, "reference_seed": data.seed}
    return {
        "data": {
            "crop": "as prepared",
            "landmarks": "as prepared",
            "frame_size": data.frame_size,
            "fps": FPS,
            "mask": data.mask.name,
            "frames_per_clip": data.frames_per_clip["test" if trainer.state.fn == "test" else "val"],
            "mean": "over a clip's frames, then over clips",
        },
        "measures": judge.describe(),
        "generation": None if sampler is None else plain(sampler) | references,
    }


def _model(trainer: Any) -> dict[str, Any]:
    """Return whose numbers they are."""
    module = trainer.lightning_module
    return {
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "weights": module.weights_hash(),
        "codec": getattr(module, "codec_hash", None),
        "features": trainer.datamodule.features,
        "precision": str(trainer.precision),
        "revision": revision(),
    }


def _seen_in_training(trainer: Any) -> list[str] | None:
    """Return the people of the evaluated clips that the weights were trained on; None where nobody knows."""
    known, clips = trainer.datamodule.trained_on, trainer.datamodule.evaluation_clips
    return None if known is None else sorted({clip.identity for clip, _ in clips} & set(known))


def _near_references(data: Any, frames: dict[str, int]) -> dict[str, int]:
    """Return how many frames of each clip had no reference min_reference_gap away and took the furthest one."""
    windows, gap = data.evaluated, data.rule.min_gap
    if not windows.has_reference or windows.picture is not None:
        return {}
    near = {clip.name: min(gap, frames.get(clip.name, 0)) - max(clip.frames - gap, 0) for clip in windows.clips}
    return {name: count for name, count in near.items() if count > 0}
