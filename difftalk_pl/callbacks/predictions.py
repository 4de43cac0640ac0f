"""What `predict` writes: every test clip as a video with its sound."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.data.video import write_video
from difftalk_pl.errors import UserError


class PredictionVideos(L.Callback):
    """Collects a clip's generated frames and writes RUN/predictions/NAME.mp4 when it is complete."""

    def __init__(self) -> None:
        self.clip: Clip | None = None
        self.frames: list[np.ndarray] = []
        self.numbers: list[int] = []

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            raise UserError(
                "predict writes clips frame by frame, so that one process must see them all: use one device"
            )
        self.clip, self.frames, self.numbers = None, [], []

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Tensor, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        clips = {clip.name: clip for clip in trainer.datamodule.windows["test"].clips}  # type: ignore[attr-defined]
        for name, number, frame in zip(batch["clip"], batch["frame"].tolist(), to_pixels(outputs)):
            if self.clip is not None and name != self.clip.name:
                self._write(trainer)
            self.clip = clips[name]
            self.frames.append(frame)
            self.numbers.append(number)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if self.clip is None:
            return
        samples = self.clip.audio().reshape(-1, SAMPLES_PER_FRAME)[self.numbers].reshape(-1)
        folder = Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{self.clip.name}.mp4", self.frames, audio=samples)
        self.clip, self.frames, self.numbers = None, [], []
