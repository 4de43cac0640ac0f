"""Checkpoints: whole or absent on any filesystem, one `last.ckpt` a run, written at its end, too."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy

from difftalk_pl.callbacks.processes import outlive_children


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames. Lightning's own goes through the temporary folder and a move, which
    on another filesystem leaves a broken file when killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with aside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, from which `fit` goes on: every so many steps, on exceptions and signals, and at the end.

    ModelCheckpoint by steps alone does not save the steps after the last multiple. It saves them while the raw weights
    are still in place, before averaged ones replace them.

    Args:
        dirpath: the folder.
        every_n_train_steps: steps between two saves.
    """

    def __init__(self, dirpath: Path, every_n_train_steps: int = 500) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_train_steps=every_n_train_steps,
            save_top_k=1,
            enable_version_counter=False,
            save_on_exception=True,
        )
        self._averages_in_place = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *batch)
        stopping = trainer.should_stop or (trainer.received_sigterm and trainer.world_size == 1)  # saving is collective
        if stopping or 0 < trainer.max_steps <= trainer.global_step:
            self._save_now(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1:
            self._save_now(trainer)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._averages_in_place = True

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._averages_in_place = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Averaged weights stand in the model during validation: what breaks off there puts the raw ones back first."""
        if self._averages_in_place:
            for averaging in (each for each in trainer.callbacks if isinstance(each, WeightAveraging)):  # type: ignore[attr-defined]
                averaging.on_validation_epoch_end(trainer, pl_module)
            self._averages_in_place = False
        if trainer.world_size == 1 or not isinstance(trainer.strategy, DDPStrategy):
            super().on_exception(trainer, pl_module, exception)
        elif trainer.is_global_zero and self._should_save_on_exception(trainer):
            self._save_alone(trainer)

    def _save_alone(self, trainer: L.Trainer) -> None:
        """Trainer.save_checkpoint would wait for the other processes, which may be gone or waiting elsewhere."""
        outlive_children()
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(False)
        trainer.strategy.save_checkpoint(checkpoint, self.format_checkpoint_name({}))

    def _save_now(self, trainer: L.Trainer) -> None:
        if trainer.global_step != self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
