"""What `predict` writes: every test clip as a video with its sound, marked as generated."""

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import lightning as L
import numpy as np

from difftalk_pl import __version__
from difftalk_pl.animate.watermark import Watermark
from difftalk_pl.data.features.windows import RATE
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.clip_scores import split_by_clip
from difftalk_pl.media.writer import TAG, write_video

log = logging.getLogger(__name__)


class PredictionVideos(L.Callback):
    """Writes the frames that the predict step returns to RUN/predictions/NAME.mp4, marked as generated.

    Args:
        watermark: mark all frames invisibly, too.
    """

    def __init__(self, watermark: bool = True) -> None:
        self.watermark = watermark

    def on_predict_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        trainer.predict_loop.return_predictions = False  # Lightning would keep all frames in memory
        self.clips = {clip.name: (clip, frames) for clip, frames in trainer.datamodule.evaluation_clips}
        self.files: dict[str, IO[bytes]] = {}  # pixels of the clips that are generated, so that memory does not grow
        self.failed: set[str] = set()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: int) -> None:
        """Keep frames, and write the video after a clip's last one."""
        for name, reason in batch["failed"].items():
            self._fail(name, reason)
        for part in () if outputs is None else split_by_clip(batch["window"], outputs):
            frames = part.methods[pl_module.method]
            if part.clip in self.failed:
                continue
            if not outputs[pl_module.method][part.rows].isfinite().all():
                self._fail(part.clip, f"the model gives numbers that are not finite, from frame {part.first}")
                continue
            if part.clip not in self.files:
                self.files[part.clip] = tempfile.TemporaryFile()  # noqa: SIM115
            self.files[part.clip].write(frames.tobytes())
            if part.first + len(frames) == self.clips[part.clip][1]:
                self._write(trainer, part.clip, frames.shape[1:], pl_module.weights_hash())

    def _write(self, trainer: Any, name: str, shape: Sequence[int], model: str) -> None:
        file = self.files.pop(name)
        file.flush()
        frames, mark = np.memmap(file, np.uint8, "r").reshape(-1, *shape), Watermark(model)
        marked = (mark.mark(frame) if self.watermark else frame for frame in frames)
        about = {"generated": True, "by": f"difftalk_pl {__version__}", "model": model, "watermark": self.watermark}
        folder = Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            sound = self.clips[name][0].audio(0, len(frames))
            write_video(folder / f"{name}.mp4", marked, audio=sound, rate=RATE, tags={TAG: json.dumps(about)})
        except (UserError, OSError) as error:
            self._fail(name, str(error))

    def _fail(self, name: str, reason: str) -> None:
        log.error("%s: not written: %s", name, reason)
        self.files.pop(name, None)
        self.failed.add(name)

    def on_predict_epoch_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        """Raise UserError where clips failed, after all others are written."""
        if self.failed:
            raise UserError(f"{len(self.failed)} of {len(self.clips)} clips could not be generated, see above")
