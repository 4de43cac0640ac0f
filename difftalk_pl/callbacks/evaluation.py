"""Whole clips, generated and measured: while fit runs, in validate and in test; the same numbers on every logger."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch

from difftalk_pl.callbacks.media import EvaluationMedia
from difftalk_pl.callbacks.protocol import results, seen_in_training
from difftalk_pl.callbacks.publishing import log_clip_table, log_numbers, log_step
from difftalk_pl.callbacks.results import summarise, write_results
from difftalk_pl.data.dataset import WindowDataset
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.lip_sync import SyncCrop
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import Judge, Measuring
from difftalk_pl.evaluation.judging import Judging, Verdict
from difftalk_pl.models.perceptual import Network
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)

RESULTS = {"test": "results.json", "val": "results_val.json"}


class Evaluation(L.Callback):
    """Generates whole clips, and measures every method of the stage and the ground truth itself.

    In test and validate it takes all clips of the side, up to data.test_frames and data.val_frames of each, and writes
    results.json (results_val.json). While fit runs, it takes a few at a validation, with the weights of validation: the
    averaged ones where there are any. A clip belongs to one process, which judges all of it.

    Of several in trainer.callbacks the last one measures and the others do nothing: one that is added with `callbacks+`
    takes the place of the one in the defaults, whose single settings cannot be changed within a list.

    Args:
        every: how many validations of fit pass from one evaluation to the next, counted from its start or resumption; 0
            evaluates never while fit runs.
        clips: how many clips while fit runs.
        seconds: of each of them, from its beginning.
        steps: of sampling while fit runs; by default those of the stage.
        lpips: the network of the perceptual measure; without its weights a warning says how to get them, and the
            measure is null in results.json. null does not measure it.
        lpips_weights: its file; without one, the published file in $TORCH_HOME/hub/checkpoints.
        syncnet: what measures lip sync: the published syncnet_v2.model, or a checkpoint or folder of SyncNetTraining;
            without one, it is not measured.
        sync_crop: what SyncNet sees of a frame: the face as tracked, or the whole frame.
        faces: measure landmarks, identity and motion, by dlib.
    """

    def __init__(
        self,
        every: int = 1,
        clips: int = 2,
        seconds: float = 2.0,
        steps: int | None = None,
        lpips: Network | None = "alex",
        lpips_weights: Path | None = None,
        syncnet: Path | None = None,
        sync_crop: SyncCrop = "face_crop",
        faces: bool = True,
    ) -> None:
        _refuse_odd(
            {
                "every": (every, 0),
                "clips": (clips, 1),
                "seconds": (seconds, 1 / FPS),
                "steps": (1 if steps is None else steps, 1),
            }
        )
        self.every, self.clips, self.seconds, self.steps = every, clips, seconds, steps
        self.measuring = Measuring(lpips, lpips_weights, syncnet, sync_crop, faces)
        self.judge: Judge | None = None
        self.validations = 0
        self.validated: Verdict | None = None
        self.published = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Open the networks that measure before any step, so that a wrong file is known at once."""
        self.judge, self.validated, self.published = None, None, False
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        last = [callback for callback in callbacks if isinstance(callback, Evaluation)][-1]
        wanted = stage in ("validate", "test") or (stage == "fit" and self.every > 0)
        if self is last and wanted and hasattr(pl_module, "generate"):
            self.judge = Judge(self.measuring, trainer.strategy.root_device, speaks=trainer.is_global_zero)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._name_people(trainer, pl_module, "test")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._name_people(trainer, pl_module, "val")

    def _name_people(self, trainer: L.Trainer, pl_module: L.LightningModule, side: str) -> None:
        if self.judge is not None and trainer.is_global_zero and (seen := seen_in_training(trainer, pl_module, side)):
            log.warning("tested on people that the model was trained on: %s", ", ".join(seen))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.judge is not None:
            windows = trainer.datamodule.evaluation("test", control=True)  # type: ignore[attr-defined]
            self._publish(trainer, pl_module, "test", self._verdict(trainer, pl_module, windows, None))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        loader: int = 0,
    ) -> None:
        """After the last batch, since the callback that averages weights takes them away at the epoch's end."""
        if loader or self.judge is None or trainer.sanity_checking or batch_idx + 1 < trainer.num_val_batches[0]:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.state.fn == "validate":
            windows = data.evaluation("val", control=True)
            self.validated = self._verdict(trainer, pl_module, windows, None)
        elif self._due():
            windows = data.evaluation("val", clips=self.clips, frames=max(round(self.seconds * FPS), 1))
            self.validated = self._verdict(trainer, pl_module, windows, self.steps)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.validated is not None:
            self._publish(trainer, pl_module, "val", self.validated)
            self.validated = None

    def _due(self) -> bool:
        self.validations += 1
        return (self.validations - 1) % self.every == 0

    def _verdict(self, trainer: L.Trainer, pl_module: Any, windows: WindowDataset, steps: int | None) -> Verdict:
        """Judge this process's clips, and wait for those of the others."""
        assert self.judge is not None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        own, media = data.own_clips(windows), _media(trainer)
        for each in media:
            each.begin(trainer)
        frames = sum(len(windows.indices(number)) for number in own)
        with _bar(trainer, frames) as done, torch.no_grad():
            precision = trainer.precision_plugin.forward_context
            judging = Judging(
                self.judge, pl_module, windows, data.evaluation_loader, steps, precision, listeners=media, done=done
            )
            judging.clips(own, together=data.loading.eval_batch_size if _in_turn(pl_module) else 1)
        return judging.finish()

    def _publish(self, trainer: L.Trainer, pl_module: L.LightningModule, side: str, verdict: Verdict) -> None:
        """Numbers of the stage's own method under SIDE/MEASURE, of the others under SIDE/METHOD/MEASURE. Those of the
        command `validate` are under validate: they are no points of the curves of fit, which has another budget.

        Raises:
            UserError: in test and validate, no clip could be judged; what is known of it is written before.
        """
        assert self.judge is not None
        key = "validate" if trainer.state.fn == "validate" else side
        methods = {method: summarise(scores, verdict.frames) for method, scores in verdict.scores.items()}
        own = str(getattr(pl_module, "method", ""))
        for measure, value in methods.get(own, {"overall": {}})["overall"].items():
            if value is not None:  # the same number in every process
                pl_module.log(f"{key}/{measure}", value)
        pl_module.log(f"{key}/failed_clips", float(len(verdict.reasons)))
        if trainer.is_global_zero:
            log_numbers(trainer, key, {method: found for method, found in methods.items() if method != own})
            if trainer.state.fn != "fit":
                content = results(trainer, pl_module, side, self.judge.describe(), methods, verdict)
                write_results(Path(trainer.default_root_dir) / RESULTS[side], content)
                log_clip_table(trainer, key, methods)
            for each in _media(trainer):
                _tolerant(each.publish, trainer, key)
        self.published = True
        if trainer.state.fn != "fit" and len(verdict.reasons) == len(verdict.frames):
            for logger in trainer.loggers:  # what self.log was given is lost with the error
                logger.log_metrics({f"{key}/failed_clips": float(len(verdict.reasons))}, step=log_step(trainer))
            reason = next(iter(verdict.reasons.values()))
            raise UserError(f"none of {len(verdict.frames)} clips could be judged, {reason}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        expected = self.judge is not None and stage in ("validate", "test") and not trainer.interrupted
        if expected and not self.published and trainer.is_global_zero:
            side = "val" if stage == "validate" else "test"
            log.warning("no clip was judged, since there was no batch: see trainer.limit_%s_batches", side)


def _tolerant(publish: Callable[..., None], *arguments: Any) -> None:
    """Pictures that cannot be written cost no numbers."""
    try:
        publish(*arguments)
    except OSError as error:
        log.warning("pictures of the evaluation are missing: %s", error)


def _refuse_odd(given: dict[str, tuple[float, float]]) -> None:
    """By name: a value, and the least that it may be."""
    for name, (value, least) in given.items():
        if value < least:
            raise UserError(f"Evaluation: {name} is {value:g}, expected {least:g} or more")


def _in_turn(pl_module: Any) -> bool:
    """Whether a frame needs the one before it, so that batches are made of several clips."""
    return bool(getattr(getattr(pl_module, "sampler", None), "sequential", False))


def _media(trainer: L.Trainer) -> list[EvaluationMedia]:
    """Who shows clips: on the first process alone, of its own clips."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [each for each in callbacks if isinstance(each, EvaluationMedia)] if trainer.is_global_zero else []


@contextmanager
def _bar(trainer: L.Trainer, frames: int) -> Iterator[Callable[[int], object]]:
    """A bar over the frames of the first process, which goes away at the end."""
    if not trainer.is_global_zero or trainer.progress_bar_callback is None:
        yield lambda count: None
        return
    with progress_bar(transient=True) as bar:
        task = bar.add_task("evaluation", total=frames)
        yield lambda count: bar.advance(task, count)
