"""What SyncNet sees of a frame. Scores of different crops are different measures, so that each has a name.

`face_crop` cuts a tracked face as the published pipeline does (syncnet_python, run_pipeline.py): boxes smoothed over
time, their lower part widened by 0.40, grey outside of the frame. Its boxes are a detector's, S3FD; here they come from
the 68 landmarks, as dlib's detector would have drawn them, so that no frame is ever without one. It shrinks without
averaging and this averages. `whole_frame` is the frame at SyncNet's side.
"""

from typing import Literal

import numpy as np
from PIL import Image
from scipy.signal import medfilt

from difftalk_pl.faces.detect import box_of

SyncCrop = Literal["face_crop", "whole_frame"]
SMOOTHED = 13  # frames of the median over centres and sizes; published
WIDENED = 0.40  # the crop beyond the box, in half sides; published as crop_scale
GREY = 110  # outside of the frame; published


def crop_boxes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Where a clip's face is cut: squares that may reach beyond the frame.

    With b half the longer side of a face's box around x, y, all three medians of 13 frames: 1.4 b to the left and right
    of x, b above y and 1.8 b below. Beyond the clip's ends the median counts zeros, as published, so that there it is
    the least value at hand. Clips of fewer frames have a shorter median.

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
    """Frames as SyncNet takes them; any chunk of a clip with its part of the boxes.

    Args:
        frames: (n, H, W, 3) uint8 RGB.
        boxes: (n, 4) from `crop_boxes`, or None for whole frames.
        side: of the result.

    Returns:
        (n, 3, side, side) uint8, blue first.
    """
    cut = frames if boxes is None else [_cut(frame, box) for frame, box in zip(frames, boxes, strict=True)]
    lips = np.empty((len(frames), 3, side, side), np.uint8)
    for number, frame in enumerate(cut):
        small = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
        lips[number] = np.asarray(small)[..., ::-1].transpose(2, 0, 1)
    return lips


def _cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A part of a frame, (H, W, 3), with grey where there is no frame."""
    left, top, right, bottom = (int(edge) for edge in box)
    part = np.full((bottom - top, right - left, 3), GREY, np.uint8)
    height, width = frame.shape[:2]
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    inside = frame[rows, columns]
    part[rows.start - top :, columns.start - left :][: inside.shape[0], : inside.shape[1]] = inside
    return part
