"""The inputs of SyncNet: windows of five frames and the 0.2 s of speech of each; and the Dataset of its training.

Scores of different crops are different measures, so that each has a name. `face_crop` cuts a tracked face as the
published pipeline does (syncnet_python, run_pipeline.py): boxes smoothed over time, their lower part widened by 0.40,
grey outside of the frame. Its boxes are a detector's, S3FD; here they come from the 68 landmarks, as dlib's detector
would have drawn them, so that no frame is ever without one. It shrinks without averaging and this averages.
`whole_frame` is the frame at SyncNet's side.
"""

import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from PIL import Image
from scipy.signal import medfilt
from torch.utils.data import Dataset

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.data.sampler import Draw
from difftalk_pl.errors import UserError
from difftalk_pl.faces.detect import box_of

SyncCrop = Literal["face_crop", "whole_frame"]
ClipPart = Literal["all", "first", "last"]
SMOOTHED = 13  # frames of the median over centres and sizes; published
WIDENED = 0.40  # the crop beyond the box, in half sides; published as crop_scale
GREY = 110  # outside of the frame; published
COEFFICIENTS = 13
STEPS_PER_FRAME = 4  # a step every 10 ms
WINDOW_STEPS = 20  # 0.2 s
WINDOW_FRAMES = 5
LARGEST_HOLDOUT = 0.2  # of a clip
MOVED, SCALED = 0.04, 0.06  # augmentation: of the crop's side, at most
BRIGHTER, CONTRAST = 20.0, 0.2  # augmentation: of 255, and about 1, at most


def crop_boxes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Return the squares in which a clip's face is cut; they may reach beyond the frame.

    With b half the longer side of a face's box around x, y, all three medians of 13 frames: 1.4 b to the left and right
    of x, b above y and 1.8 b below. Beyond the clip's ends the median counts zeros, as published.

    Args:
        landmarks: (T, 68, 2), fractions of the side of a square frame.
        size: that side in pixels.

    Returns:
        (T, 4) int, left, top, right, bottom in pixels; right and bottom are outside.
    """
    boxes = np.stack([box_of(points) for points in np.asarray(landmarks, np.float64) * size])
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2
    frames = min(SMOOTHED, len(boxes) - (len(boxes) + 1) % 2)
    x, y, half = (medfilt(values, frames) for values in (*((boxes[:, :2] + boxes[:, 2:]) / 2).T, half))
    side, below = half * (1 + WIDENED), half * (1 + 2 * WIDENED)
    margin = below.astype(int)  # published: whole pixels are cut off with the padding in place
    edges = np.stack([x - side, y - half, x + side, y + below], axis=1)
    return (edges + margin[:, None]).astype(int) - margin[:, None]


def lip_frames(frames: np.ndarray, boxes: np.ndarray | None, side: int) -> np.ndarray:
    """Cut and shrink frames as SyncNet takes them; any chunk of a clip with its part of the boxes.

    Args:
        frames: (n, H, W, 3) uint8 RGB.
        boxes: (n, 4) from `crop_boxes`, or None for whole frames.
        side: of the result, (n, 3, side, side) uint8, blue first.
    """
    lips = np.empty((len(frames), 3, side, side), np.uint8)
    for number, frame in enumerate(frames):
        picture = Image.fromarray(frame)
        if boxes is not None:
            left, top, right, bottom = boxes[number].tolist()
            cut = Image.new("RGB", (right - left, bottom - top), (GREY, GREY, GREY))
            cut.paste(picture, (-left, -top))
            picture = cut
        small = picture.resize((side, side), Image.Resampling.BILINEAR)
        lips[number] = np.asarray(small)[..., ::-1].transpose(2, 0, 1)
    return lips


def sync_windows(frames: int, samples: int) -> int:
    """Count the windows that the published scores take of a clip: N - 5, where N frames have picture and audio.

    Raises UserError if there is none. `samples` at 16 kHz.
    """
    both = min(frames, samples * FPS // RATE)
    if both <= WINDOW_FRAMES:
        raise UserError(
            f"{frames} frames and {samples / RATE:.2f} s of audio are too short for lip-sync scores: "
            f"give at least {WINDOW_FRAMES + 1} frames ({(WINDOW_FRAMES + 1) / FPS:.2f} s) of both"
        )
    return both - WINDOW_FRAMES


def sync_mfcc(samples: np.ndarray, windows: int) -> np.ndarray:
    """Return the MFCC of a clip's windows v with python_speech_features' defaults, steps 4v … 4v + 19.

    Not the features `mfcc`: SyncNet was trained on 13 coefficients every 10 ms, neither dithered nor normalised.

    Args:
        samples: (S,) int16 at 16 kHz, whose loudness SyncNet was trained on.
        windows: how many, from `sync_windows`; the result is (windows, 13, 20) float32.
    """
    from python_speech_features import mfcc

    steps = mfcc(samples, RATE, numcep=COEFFICIENTS).astype(np.float32)
    every_step = np.lib.stride_tricks.sliding_window_view(steps, WINDOW_STEPS, axis=0)
    return every_step[::STEPS_PER_FRAME][:windows]


@dataclass
class SyncData:
    """The inputs of a SyncNet.

    Args:
        crop: face_crop follows the face as the published pipeline does; whole_frame takes the frame as it is.
        side: of the frames that the network takes.
        stretch: consecutive frames of a sample; four fewer are its windows.
        largest_shift: frames by which speech is shifted against the lips, in both directions.
        holdout_seconds: the end of every training clip, at most a fifth, that validates in place of other people.
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
        self.stretches: list[tuple[Clip, int, int, int]] = []  # number in its clip, least first frame, choices of it
        length, shift = settings.stretch, settings.largest_shift
        needed = length + 2 * shift + 1  # a window's last step reaches into the next frame
        for clip in clips:
            begin, end = bounds(clip.frames, settings.holdout_seconds, part)
            for start in range(0, end - begin - needed + 1, length):
                choices = min(length, end - begin - needed + 1 - start)
                self.stretches.append((clip, start // length, begin + shift + start, choices))
        if not self.stretches:
            raise UserError(f"no clip for SyncNet: of {len(clips)} given, none has {needed} frames that it may use")

    def __len__(self) -> int:
        return len(self.stretches)

    def __getitem__(self, draw: int | Draw) -> SyncSample:
        clip, frame, random = self.where(*(draw if isinstance(draw, Draw) else (draw, 0)))
        settings = self.settings
        with closing(clip.reader()) as reader:
            frames = np.stack([reader[k] for k in range(frame, frame + settings.stretch)])
        boxes = None
        if settings.crop == "face_crop":  # a median needs its neighbours
            around = slice(max(frame - SMOOTHED // 2, 0), frame + settings.stretch + SMOOTHED // 2)
            boxes = crop_boxes(clip.landmarks[around], frames.shape[1])[frame - around.start :][: len(frames)]
        augmented = settings.augment and not self.fixed
        lips = augment(frames, boxes, settings.side, random) if augmented else lip_frames(frames, boxes, settings.side)
        first = frame - settings.largest_shift
        windows = settings.stretch - WINDOW_FRAMES + 1 + 2 * settings.largest_shift
        lead = min(first, 1)  # frames: a coefficient depends on its 25 ms and on the one sample before them
        samples = clip.audio(first - lead, first + windows + WINDOW_FRAMES)
        mfcc = torch.from_numpy(sync_mfcc(samples, lead + windows)[lead:].copy())
        return {"lips": torch.from_numpy(lips), "mfcc": mfcc, "clip": clip.name, "frame": frame}

    def where(self, index: int, epoch: int = 0) -> tuple[Clip, int, np.random.Generator]:
        """Return clip and first frame of a stretch, and the generator of the rest of its randomness."""
        clip, number, first, choices = self.stretches[index]
        name = zlib.crc32(clip.name.encode())
        random = np.random.default_rng([self.seed, 0 if self.fixed else epoch, name, number])
        return clip, first + (0 if self.fixed else int(random.integers(choices))), random


def bounds(frames: int, holdout_seconds: float, part: ClipPart) -> tuple[int, int]:
    """Return the first frame of a clip's part, and the one after its last."""
    edge = frames - round(min(holdout_seconds * FPS, LARGEST_HOLDOUT * frames))
    return {"all": (0, frames), "first": (0, edge), "last": (edge, frames)}[part]


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
