"""What `predict` writes: every test clip as a video with its sound, drawn and marked as `animate` draws and marks."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from difftalk_pl import __version__
from difftalk_pl.animate.watermark import Watermark
from difftalk_pl.data.dataset import WindowDataset
from difftalk_pl.data.features.windows import RATE
from difftalk_pl.errors import UserError
from difftalk_pl.generation.drawing import draw
from difftalk_pl.media.writer import TAG, write_video
from difftalk_pl.progress import progress_bar

log = logging.getLogger(__name__)


class PredictionVideos(L.Callback):
    """Draws the clips of the test side whole, each by one process, and writes RUN/predictions/NAME.mp4. A clip that
    cannot be read costs itself alone.

    Args:
        watermark: mark all frames as generated.
    """

    def __init__(self, watermark: bool = True) -> None:
        self.watermark = watermark

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raises UserError where clips failed: how many, after all have had their turn."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        windows: WindowDataset = data.evaluated
        own, failed = data.own_clips(windows), 0
        for number in own:
            name = windows.clips[number].name
            try:
                self._write(trainer, pl_module, windows, number)
            except (UserError, OSError) as error:
                failed += 1
                log.error("%s: not written: %s", name, error)
        if failed:
            raise UserError(f"{failed} of {len(own)} clips could not be drawn, see above")

    def _write(self, trainer: L.Trainer, pl_module: Any, windows: WindowDataset, number: int) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        clip, places = windows.clips[number], windows.indices(number)
        samples = clip.audio(0, len(places))
        squares = draw(
            pl_module.generator(),
            windows,
            [places],
            pl_module.device,
            data.loading.eval_batch_size,
            data.loading.workers,
            trainer.precision_plugin.forward_context,
        )
        folder = Path(trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        model = pl_module.weights_hash()
        about = {"generated": True, "by": f"difftalk_pl {__version__}", "model": model, "watermark": self.watermark}
        with progress_bar(transient=True) as bar:
            task = bar.add_task(clip.name, total=len(places))
            frames = (square.generated for square in squares)
            shown = _told(frames, lambda: bar.advance(task))
            mark = Watermark(model)
            marked = (mark.mark(frame) for frame in shown) if self.watermark else shown
            write_video(folder / f"{clip.name}.mp4", marked, audio=samples, rate=RATE, tags={TAG: json.dumps(about)})


def _told(frames: Iterator[np.ndarray], advance: Any) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame
        advance()
