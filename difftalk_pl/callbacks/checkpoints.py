"""Checkpoints: whole or absent on any filesystem, one `last.ckpt` a run, written at its end, too."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames; Lightning's own leaves a broken file when killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, from which `fit` goes on: every so many steps, before validations, at the end, and on
    exceptions and signals that reach the first rank.

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

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """Save the last step here: at the end of fit averaged weights have replaced the raw ones."""
        super().on_train_batch_end(trainer, pl_module, *batch)
        if trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step:
            self._save_now(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.max_epochs is not None and 0 < trainer.max_epochs <= trainer.current_epoch + 1:
            self._save_now(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save before averaged weights replace the raw ones: an error in validation finds the step saved."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_now(trainer)

    def on_exception(self, trainer: Any, pl_module: L.LightningModule, exception: BaseException) -> None:
        """With several ranks, save without the others: they may be gone, and Trainer.save_checkpoint waits for them."""
        if trainer.validating:
            return
        if trainer.world_size == 1:
            super().on_exception(trainer, pl_module, exception)
        elif trainer.is_global_zero and self._should_save_on_exception(trainer):
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(False)
            trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, self.format_checkpoint_name({}))

    def _save_now(self, trainer: L.Trainer) -> None:
        if trainer.global_step != self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
