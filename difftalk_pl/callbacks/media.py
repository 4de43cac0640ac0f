"""Contact sheets, videos with sound and offset curves of an evaluation, in RUN/samples and on W&B."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger

from difftalk_pl.callbacks.evaluation import evaluation_of, log_step
from difftalk_pl.callbacks.sheets import contact_sheet, offset_curves, save_picture, side_by_side
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.clip_scores import split_by_clip
from difftalk_pl.media.writer import write_video

log = logging.getLogger(__name__)

INPUTS = ("masked", "reference")  # beside the methods on a sheet
PREFIXES = {"test": "test", "validate": "val"}


class EvaluationMedia(L.Callback):
    """Shows the first clips of the first process. Files are called test_CLIP, val_CLIP or, while fit runs, STEP_CLIP;
    on W&B they are under SIDE/sheets, SIDE/videos and SIDE/sync.

    Args:
        clips: how many.
        columns: frames of a contact sheet.
        every: distance between them.
        seconds: of the videos, from the clip's beginning.
    """

    def __init__(self, clips: int = 2, columns: int = 16, every: int = 2, seconds: float = 4.0) -> None:
        self.clips, self.columns, self.every, self.frames = clips, columns, every, round(seconds * FPS)
        self.shown: dict[str, dict[str, list[np.ndarray]]] = {}  # frames by clip, and by method or input

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: int) -> None:
        """Keep the frames that will be shown."""
        longest = max(self.frames, self.columns * self.every)
        if outputs is None or not trainer.is_global_zero or min(batch["window"]["frame"]) >= longest:
            return
        inputs = {name: to_pixels(batch["window"][name]) for name in INPUTS if name in batch["window"]}
        for part in split_by_clip(batch["window"], outputs):
            if part.clip not in self.shown and len(self.shown) == self.clips:
                continue
            shown = self.shown.setdefault(part.clip, defaultdict(list))
            for name, frames in (part.methods | {name: one[part.rows] for name, one in inputs.items()}).items():
                shown[name] += list(frames)[: longest - len(shown[name])]

    on_validation_batch_end = on_test_batch_end  # type: ignore[assignment]  # of loss windows there are no outputs

    def on_test_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        """Write the files and hand them to W&B. A full disk costs pictures alone."""
        command = trainer.state.fn.value
        stem = Path(trainer.default_root_dir) / "samples" / PREFIXES.get(command, f"{trainer.global_step:07d}")
        files: dict[str, list[Path]] = defaultdict(list)
        try:
            for clip in self.shown:
                for kind, path in self._write(trainer, clip, f"{stem}_{clip}"):
                    files[kind].append(path)
        except (UserError, OSError) as error:
            log.warning("pictures of the evaluation are missing: %s", error)
        self.shown = {}
        for logger in (each for each in trainer.loggers if isinstance(each, WandbLogger)):
            for kind, paths in files.items():
                log_media = logger.log_video if kind == "videos" else logger.log_image
                key = f"{command if command in PREFIXES else 'val'}/{kind}"
                captions = [path.stem for path in paths]
                log_media(key, list(map(str, paths)), step=log_step(trainer), caption=captions)

    on_validation_end = on_test_end

    def _write(self, trainer: Any, clip: str, stem: str) -> Iterator[tuple[str, Path]]:
        """Write the files of a clip, and yield the kind and path of each."""
        frames = self.shown[clip]
        sheet = [(name, shown[: self.columns * self.every : self.every]) for name, shown in frames.items()]
        save_picture(Path(f"{stem}.png"), contact_sheet(sheet))
        yield "sheets", Path(f"{stem}.png")
        result = getattr(evaluation_of(trainer), "result", None)
        found = {} if result is None else {name: method["curves"].get(clip) for name, method in result.methods.items()}
        if curves := {name: curve for name, curve in found.items() if curve}:
            offset_curves(Path(f"{stem}_sync.png"), curves, f"{clip}: offset by SyncNet")
            yield "sync", Path(f"{stem}_sync.png")
        video = {name: shown[: self.frames] for name, shown in frames.items() if name not in INPUTS}
        (known,) = [each for each, _ in trainer.datamodule.evaluation_clips if each.name == clip]
        sound = known.audio(0, len(next(iter(video.values()))))
        write_video(f"{stem}.mp4", side_by_side(video), fps=FPS, audio=sound, rate=RATE)
        yield "videos", Path(f"{stem}.mp4")
