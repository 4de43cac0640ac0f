"""The inputs of SyncNet: windows of five frames, and the 0.2 s of speech that belong to each.

Scores of different crops are different measures, so that each has a name. `face_crop` cuts a tracked face as the
published pipeline does (syncnet_python, run_pipeline.py): boxes smoothed over time, their lower part widened by 0.40,
grey outside of the frame. Its boxes are a detector's, S3FD; here they come from the 68 landmarks, as dlib's detector
would have drawn them, so that no frame is ever without one. It shrinks without averaging and this averages.
`whole_frame` is the frame at SyncNet's side.
"""

from typing import Literal

import numpy as np
from PIL import Image
from scipy.signal import medfilt

from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.errors import UserError
from difftalk_pl.faces.detect import box_of

SyncCrop = Literal["face_crop", "whole_frame"]
SMOOTHED = 13  # frames of the median over centres and sizes; published
WIDENED = 0.40  # the crop beyond the box, in half sides; published as crop_scale
GREY = 110  # outside of the frame; published
COEFFICIENTS = 13
STEPS_PER_FRAME = 4  # a step every 10 ms
WINDOW_STEPS = 20  # 0.2 s
WINDOW_FRAMES = 5


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
    cut = frames if boxes is None else [_cut(frame, box) for frame, box in zip(frames, boxes, strict=True)]
    lips = np.empty((len(frames), 3, side, side), np.uint8)
    for number, frame in enumerate(cut):
        small = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
        lips[number] = np.asarray(small)[..., ::-1].transpose(2, 0, 1)
    return lips


def _cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cut a part of a frame, (H, W, 3), with grey where there is no frame."""
    left, top, right, bottom = (int(edge) for edge in box)
    part = np.full((bottom - top, right - left, 3), GREY, np.uint8)
    height, width = frame.shape[:2]
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    inside = frame[rows, columns]
    part[rows.start - top :, columns.start - left :][: inside.shape[0], : inside.shape[1]] = inside
    return part


def sync_windows(frames: int, samples: int, name: str = "the clip") -> int:
    """Count the windows that the published scores take of a clip: N - 5, where N frames have picture and audio.

    Raises UserError if there is none. `samples` at 16 kHz; the error calls the clip by its name.
    """
    both = min(frames, samples * FPS // RATE)
    if both <= WINDOW_FRAMES:
        raise UserError(
            f"{name}: {frames} frames and {samples / RATE:.2f} s of audio are too short for lip-sync scores: "
            f"give at least {WINDOW_FRAMES + 1} frames ({(WINDOW_FRAMES + 1) / FPS:.2f} s) of both"
        )
    return both - WINDOW_FRAMES


def sync_mfcc(samples: np.ndarray, windows: int) -> np.ndarray:
    """Return the MFCC of a clip's windows v with python_speech_features' defaults, steps 4v … 4v + 19.

    Not the features `mfcc`: SyncNet was trained on 13 coefficients every 10 ms, neither dithered nor normalised.

    Args:
        samples: (S,) int16 at 16 kHz.
        windows: how many, from `sync_windows`; the result is (windows, 13, 20) float32.
    """
    from python_speech_features import mfcc

    if samples.dtype != np.int16:
        raise ValueError(f"samples are {samples.dtype}: expected int16, whose loudness SyncNet was trained on")
    steps = mfcc(samples, RATE, numcep=COEFFICIENTS).astype(np.float32)
    every_step = np.lib.stride_tricks.sliding_window_view(steps, WINDOW_STEPS, axis=0)
    return every_step[::STEPS_PER_FRAME][:windows]
