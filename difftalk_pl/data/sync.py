"""The Dataset of SyncNet's training: stretches of a clip's frames with the speech of every shift to compare them with.

A stretch needs no features on disk: the coefficients of its speech are computed from its samples.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.lip_sync import SMOOTHED, WINDOW_FRAMES, SyncCrop, crop_boxes, lip_frames, sync_mfcc
from difftalk_pl.data.sampler import Draw
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

LARGEST_HOLDOUT = 0.2  # of a clip
MOVED, SCALED = 0.04, 0.06  # augmentation: of the crop's side, at most
BRIGHTER, CONTRAST = 20.0, 0.2  # augmentation: of 255, and about 1, at most
ClipPart = Literal["all", "first", "last"]


@dataclass
class SyncData:
    """The inputs of a SyncNet.

    Args:
        crop: face_crop follows the face as the published pipeline does; whole_frame takes the frame as it is.
        side: of the frames that the network takes.
        stretch: consecutive frames of a sample; four fewer are its windows.
        largest_shift: frames by which speech is shifted against the lips, in both directions.
        holdout_seconds: the end of every training clip, at most a fifth of it, that validates in place of other
            people.
        augment: vary brightness, contrast, place and size of the crop and left and right while training.
    """

    crop: SyncCrop = "face_crop"
    side: int = 224
    stretch: int = 25
    largest_shift: int = 15
    holdout_seconds: float = 0.0
    augment: bool = True

    def __post_init__(self) -> None:
        if self.stretch < WINDOW_FRAMES or self.largest_shift < 1 or self.holdout_seconds < 0:
            raise UserError(
                f"data.sync: stretch {self.stretch}, largest_shift {self.largest_shift}, holdout_seconds "
                f"{self.holdout_seconds:g}: expected at least {WINDOW_FRAMES}, 1 and 0"
            )


class SyncSample(TypedDict):
    """One stretch. Lip window i goes with speech i + largest_shift."""

    lips: torch.Tensor  # (T, 3, side, side) uint8, blue first
    mfcc: torch.Tensor  # (T - 4 + 2 * largest_shift, 13, 20)
    clip: str
    frame: int  # the first of the lips


class Span(NamedTuple):
    """The first frames that stretches of a clip may have: `starts` of them, from `first` on."""

    clip: Clip
    first: int
    starts: int


class SyncWindows(Dataset):
    """Stretches by index. A stretch and all speech it is compared with lie within a clip, or within its part.

    Args:
        clips: the clips, in the order that numbers the stretches.
        settings: what a stretch is.
        part: all of every clip, or what comes before or after the edge of `holdout_seconds`.
        seed: of all randomness; a stretch is a function of (seed, epoch, index).
        fixed: for validation: the same stretches in every epoch, not augmented.

    Raises:
        UserError: no clip is long enough; or, when a stretch is read, a file is missing or damaged.
    """

    def __init__(
        self, clips: Sequence[Clip], settings: SyncData, *, part: ClipPart = "all", seed: int = 0, fixed: bool = False
    ) -> None:
        self.settings, self.seed, self.fixed = settings, seed, fixed
        needed = settings.stretch + 2 * settings.largest_shift + 1  # a window's last step reaches into the next frame
        self.spans = []
        for clip in clips:
            begin, end = bounds(clip.frames, settings.holdout_seconds, part)
            if end - begin >= needed:
                self.spans.append(Span(clip, begin + settings.largest_shift, end - begin - needed + 1))
        self.clips = [span.clip for span in self.spans]
        if len(self.clips) < len(clips):
            log.warning(
                "%d of %d clips have less than %d frames for SyncNet", len(clips) - len(self.clips), len(clips), needed
            )
        if not self.clips:
            raise UserError(f"no clip for SyncNet: of {len(clips)} given, none has {needed} frames that it may use")
        self.ends = np.cumsum([-(-span.starts // settings.stretch) for span in self.spans])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, draw: int | Draw) -> SyncSample:
        return self.stretch(*self.where(*(draw if isinstance(draw, Draw) else (draw, 0))))

    def where(self, index: int, epoch: int = 0) -> tuple[Clip, int, np.random.Generator]:
        """Return clip and first frame of a stretch, and the generator of the rest of its randomness."""
        which = int(np.searchsorted(self.ends, index, side="right"))
        span = self.spans[which]
        number = index - (int(self.ends[which - 1]) if which else 0)
        name = zlib.crc32(span.clip.name.encode())
        random = np.random.default_rng([self.seed, 0 if self.fixed else epoch, name, number])
        start = number * self.settings.stretch
        room = min(self.settings.stretch, span.starts - start)
        return span.clip, span.first + start + (0 if self.fixed else int(random.integers(room))), random

    def stretch(self, clip: Clip, frame: int, random: np.random.Generator) -> SyncSample:
        """Read the stretch of a clip that starts with this frame."""
        settings = self.settings
        with closing(clip.reader()) as reader:
            frames = np.stack([reader[k] for k in range(frame, frame + settings.stretch)])
        boxes = None
        if settings.crop == "face_crop":  # a median needs its neighbours
            around = slice(max(frame - SMOOTHED // 2, 0), frame + settings.stretch + SMOOTHED // 2)
            boxes = crop_boxes(clip.landmarks[around], frames.shape[1])[frame - around.start :][: len(frames)]
        augmented = settings.augment and not self.fixed
        lips = augment(frames, boxes, settings.side, random) if augmented else lip_frames(frames, boxes, settings.side)
        windows = settings.stretch - WINDOW_FRAMES + 1 + 2 * settings.largest_shift
        mfcc = speech(clip, frame - settings.largest_shift, windows)
        return {"lips": torch.from_numpy(lips), "mfcc": torch.from_numpy(mfcc), "clip": clip.name, "frame": frame}


def bounds(frames: int, holdout_seconds: float, part: ClipPart) -> tuple[int, int]:
    """Return the first frame of a clip's part, and the one after its last."""
    edge = frames - round(min(holdout_seconds * FPS, LARGEST_HOLDOUT * frames))
    return {"all": (0, frames), "first": (0, edge), "last": (edge, frames)}[part]


def speech(clip: Clip, first: int, windows: int) -> np.ndarray:
    """Return the speech of the windows from a frame on, as `sync_mfcc` of the whole clip has it: (windows, 13, 20).

    A coefficient depends on its 25 ms and on the one sample before them, so that a frame of lead is enough.
    """
    lead = min(first, 1)
    samples = clip.audio(first - lead, first + windows + WINDOW_FRAMES)
    return np.ascontiguousarray(sync_mfcc(samples.astype(np.int16), lead + windows)[lead:])


def augment(frames: np.ndarray, boxes: np.ndarray | None, side: int, random: np.random.Generator) -> np.ndarray:
    """Apply `lip_frames` with one change for all frames of a stretch, so that nothing moves that did not move."""
    if boxes is None:
        height, width = frames.shape[1:3]
        boxes = np.tile([0, 0, width, height], (len(frames), 1))
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(float)
    moved = (boxes[:, :2] + boxes[:, 2:]) / 2 + random.uniform(-MOVED, MOVED, 2) * sides
    half = sides * random.uniform(1 - SCALED, 1 + SCALED) / 2
    lips = lip_frames(frames, np.concatenate([moved - half, moved + half], axis=1).round().astype(int), side)
    contrast, brighter = random.uniform(1 - CONTRAST, 1 + CONTRAST), random.uniform(-BRIGHTER, BRIGHTER)
    levels = ((np.arange(256) - 127.5) * contrast + 127.5 + brighter).round().clip(0, 255).astype(np.uint8)
    return levels[lips[..., ::-1] if random.integers(2) else lips]


def open_sides(sides: Mapping[str, list[Clip]], stage: str, settings: SyncData, seed: int) -> dict[str, SyncWindows]:
    """Open the Datasets of a stage of training by their sides.

    Raises:
        UserError: validation by held-out seconds and by other people at once, or a stage that a SyncNet does not have.
    """
    if stage not in ("fit", "validate"):
        raise UserError(f"{stage} is not for a SyncNet: validate tells its accuracy; score and test judge with it")
    held_out = settings.holdout_seconds > 0
    if held_out and sides["val"]:
        raise UserError("data.sync.holdout_seconds takes the place of validation clips: set data.split.val 0")
    windows = {}
    if stage == "fit":
        windows["train"] = SyncWindows(sides["train"], settings, part="first", seed=seed)
    if held_out or sides["val"]:
        clips, part = (sides["train"], "last") if held_out else (sides["val"], "all")
        windows["val"] = SyncWindows(clips, settings, part=part, seed=seed, fixed=True)  # type: ignore[arg-type]
    return windows
