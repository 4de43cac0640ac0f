"""Pictures of what a stage makes, at every validation, for the run's folder and for W&B."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger

from difftalk_pl.callbacks.sheets import contact_sheet, save_picture
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)


class SampleImages(L.Callback):
    """Draws a few validation windows with the weights of validation (EMA where there is one).

    The sheet goes to RUN/samples/STEP.png and, under the key `samples`, to W&B.

    Args:
        count: how many windows, spread over the validation clips.
    """

    def __init__(self, count: int = 8) -> None:
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        loader: int = 0,
    ) -> None:
        """During the first batch, since the callback that averages weights takes them away at the epoch's end."""
        draws = trainer.is_global_zero and hasattr(pl_module, "generate")  # a SyncNet does not
        if batch_idx == 0 and loader == 0 and draws and not trainer.sanity_checking:
            try:
                batch = self._windows(trainer, pl_module)
            except (UserError, OSError) as error:
                log.warning("no sample sheet: %s", error)
                return
            with torch.no_grad():
                rows: dict[str, torch.Tensor] = pl_module.generate(batch)  # type: ignore[operator, assignment]
            names = ("image", "masked", "reference")
            shown = [(name, list(to_pixels(batch[name]))) for name in names if name in batch]
            shown += [(name, list(to_pixels(frames))) for name, frames in rows.items()]
            self._publish(trainer, contact_sheet(shown))

    def _windows(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        windows = data.evaluation("val")
        chosen = [windows[int(i)] for i in torch.linspace(0, len(windows) - 1, self.count)]
        batch = torch.utils.data.default_collate(chosen)
        return {key: value.to(pl_module.device) if hasattr(value, "to") else value for key, value in batch.items()}

    def _publish(self, trainer: L.Trainer, sheet: Any) -> None:
        path = Path(trainer.default_root_dir) / "samples" / f"{trainer.global_step:07d}.png"
        save_picture(path, sheet)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [str(path)], step=trainer.global_step)
