"""Something to look at of every evaluation: sheets, videos with sound, curves and maps, in RUN/samples and on W&B."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger

from difftalk_pl.callbacks.plots import codebook_use, difference_maps, offset_curves
from difftalk_pl.callbacks.publishing import log_step
from difftalk_pl.callbacks.sheets import contact_sheet, save_picture, side_by_side
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.evaluation.judge import ClipScore
from difftalk_pl.evaluation.judging import Shown
from difftalk_pl.media.writer import write_video

VIDEOS = ("videos",)


class EvaluationMedia(L.Callback):
    """Shows the first clips that the first process judges. Files are called test_CLIP, val_CLIP or, while fit runs,
    STEP_CLIP; on W&B they lie under SIDE/sheets, SIDE/videos, SIDE/sync, SIDE/differences and SIDE/codebook.

    Args:
        clips: how many.
        columns: moments of a contact sheet.
        every: frames between them.
        seconds: of the videos and of the differences, from the clip's beginning.
    """

    def __init__(self, clips: int = 2, columns: int = 16, every: int = 2, seconds: float = 4.0) -> None:
        self.clips, self.columns, self.every, self.seconds = clips, columns, every, seconds
        self.folder, self.prefix = Path(), ""
        self.files: dict[str, list[Path]] = {}
        self.shown: dict[str, _ShownClip] = {}
        self.counts: np.ndarray | None = None

    def begin(self, trainer: L.Trainer) -> None:
        """An evaluation begins."""
        names = {"test": "test", "validate": "val"}
        self.folder = Path(trainer.default_root_dir) / "samples"
        self.prefix = names.get(str(trainer.state.fn and trainer.state.fn.value), f"{trainer.global_step:07d}")
        codes = getattr(trainer.lightning_module, "codes", None)
        self.counts = None if codes is None else np.zeros(codes, np.int64)
        self.files, self.shown = {}, {}

    def on_clip_start(self, clip: Clip, frames: int) -> None:
        if clip.name in self.shown or len(self.shown) < self.clips:
            moments = range(0, self.columns * self.every, self.every)
            self.shown[clip.name] = _ShownClip(clip.name, moments, round(self.seconds * FPS))

    def on_clip_frames(self, name: str, shown: Shown) -> None:
        if name in self.shown:
            self.shown[name].add(shown)
        if self.counts is not None:
            self.counts += np.bincount(shown.codes.ravel(), minlength=len(self.counts))

    def on_clip_end(self, name: str, samples: np.ndarray, scores: Mapping[str, ClipScore]) -> None:
        if name not in self.shown:
            return
        clip, self.shown[name] = self.shown[name], _ShownClip(name, range(0), 0)  # its frames need no memory any more
        stem = f"{self.prefix}_{clip.name}"
        self._save("sheets", f"{stem}.png", contact_sheet(list(clip.sheet.items())))
        self._save("differences", f"{stem}_differences.png", difference_maps(clip.differences(), clip.name))
        curves = {method: score.curve for method, score in scores.items() if score.curve is not None}
        if curves:
            self._save("sync", f"{stem}_sync.png", offset_curves(curves, f"{clip.name}: offset by SyncNet"))
        video, frames = self.folder / f"{stem}.mp4", clip.frames
        sound = samples[: frames * SAMPLES_PER_FRAME]
        write_video(video, side_by_side(clip.methods), fps=FPS, audio=sound, rate=RATE)
        self.files.setdefault("videos", []).append(video)

    def publish(self, trainer: L.Trainer, side: str) -> None:
        """Hand the files to W&B."""
        if self.counts is not None and self.counts.any():
            name = f"{self.prefix}_codebook.png"
            self._save("codebook", name, codebook_use(self.counts, "codebook on the true frames"))
        for logger in (each for each in trainer.loggers if isinstance(each, WandbLogger)):
            for kind, files in self.files.items():
                paths = [str(path) for path in files]
                captions = [path.stem for path in files]
                log = logger.log_video if kind in VIDEOS else logger.log_image
                log(f"{side}/{kind}", paths, step=log_step(trainer), caption=captions)

    def _save(self, kind: str, name: str, picture: np.ndarray) -> None:
        self.files.setdefault(kind, []).append(save_picture(self.folder / name, picture))


class _ShownClip:
    """Frames of one clip that will be shown.

    Args:
        moments: frames of the sheet.
        longest: frames of the video.
    """

    def __init__(self, name: str, moments: range, longest: int) -> None:
        self.name, self.moments, self.longest = name, moments, longest
        self.sheet: dict[str, list[np.ndarray]] = {}
        self.methods: dict[str, list[np.ndarray]] = {}

    @property
    def frames(self) -> int:
        return len(next(iter(self.methods.values())))

    def add(self, shown: Shown) -> None:
        true, *others = shown.methods.items()
        for name, frames in [true, *shown.inputs.items(), *others]:
            chosen = [frame for number, frame in enumerate(frames, shown.first) if number in self.moments]
            self.sheet.setdefault(name, []).extend(chosen)
        for name, frames in shown.methods.items():
            kept = self.methods.setdefault(name, [])
            kept.extend(frames[: max(self.longest - len(kept), 0)])

    def differences(self) -> dict[str, np.ndarray]:
        """Mean absolute difference of adjacent frames, (H, W), by method."""
        maps = {}
        for name, frames in self.methods.items():
            total = np.zeros(frames[0].shape[:2])
            for one, other in pairwise(frames):
                total += np.abs(one.astype(np.float32) - other).mean(-1)
            maps[name] = total / max(len(frames) - 1, 1)
        return maps
