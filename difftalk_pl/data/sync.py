"""The Dataset of SyncNet's training: stretches of a clip's frames with the speech of every shift to compare them with.

A stretch needs no features on disk: the coefficients of its speech are computed from its samples.
"""

import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.lip_sync import SMOOTHED, WINDOW_FRAMES, SyncCrop, crop_boxes, lip_frames, sync_mfcc
from difftalk_pl.data.sampler import Draw
from difftalk_pl.errors import UserError

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


class SyncSample(TypedDict):
    """One stretch. Lip window i goes with speech i + largest_shift."""

    lips: torch.Tensor  # (T, 3, side, side) uint8, blue first
    mfcc: torch.Tensor  # (T - 4 + 2 * largest_shift, 13, 20)
    clip: str
    frame: int  # the first of the lips


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
        self, clips: Sequence[Clip], settings: SyncData, part: ClipPart = "all", seed: int = 0, fixed: bool = False
    ) -> None:
        self.settings, self.seed, self.fixed = settings, seed, fixed
        needed = settings.stretch + 2 * settings.largest_shift + 1  # a window's last step reaches into the next frame
        parts = [bounds(clip.frames, settings.holdout_seconds, part) for clip in clips]
        used = [number for number, (begin, end) in enumerate(parts) if end - begin >= needed]
        if not used:
            raise UserError(f"no clip for SyncNet: of {len(clips)} given, none has {needed} frames that it may use")
        self.clips = [clips[number] for number in used]
        self.firsts = [parts[number][0] + settings.largest_shift for number in used]  # of a stretch, the least
        self.starts = [parts[number][1] - parts[number][0] - needed + 1 for number in used]  # first frames there may be
        self.ends = np.cumsum([-(-starts // settings.stretch) for starts in self.starts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, draw: int | Draw) -> SyncSample:
        return self._read(*self.where(*(draw if isinstance(draw, Draw) else (draw, 0))))

    def where(self, index: int, epoch: int = 0) -> tuple[Clip, int, np.random.Generator]:
        """Return clip and first frame of a stretch, and the generator of the rest of its randomness."""
        which = int(np.searchsorted(self.ends, index, side="right"))
        clip, number = self.clips[which], index - (int(self.ends[which - 1]) if which else 0)
        name = zlib.crc32(clip.name.encode())
        random = np.random.default_rng([self.seed, 0 if self.fixed else epoch, name, number])
        start = number * self.settings.stretch
        room = min(self.settings.stretch, self.starts[which] - start)
        return clip, self.firsts[which] + start + (0 if self.fixed else int(random.integers(room))), random

    def _read(self, clip: Clip, frame: int, random: np.random.Generator) -> SyncSample:
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
