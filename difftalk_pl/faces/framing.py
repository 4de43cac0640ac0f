"""What becomes of a found face: gaps filled, jitter smoothed, and the one still square that the clip is cut to."""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from difftalk_pl.errors import UserError

MARGIN = 2.2  # square over face (brows to chin, ear to ear): HDTF's own crops lie between 1.9 and 2.4
FACE_HEIGHT = (
    0.6  # where the middle of the landmarks lies in the square, from the top: hair and forehead are above them
)
OUTSIDE = 0.1  # of the face may lie outside of the frame
JAW = (0, 16)  # the ends of the jaw line, at the ears


class Crop(NamedTuple):
    """A square of the source's frame, pixels."""

    x: int
    y: int
    side: int


def fill_gaps(landmarks: np.ndarray, max_gap: int = 12, fps: float = 25) -> np.ndarray:
    """Landmarks without NaN: straight lines through gaps of up to `max_gap` frames, the nearest frame held at the ends.

    Args:
        landmarks: (T, 68, 2), NaN where there is no face.
        max_gap: frames; 12 is half a second. What moves in a longer gap is not known.

    Raises:
        UserError: no face at all, or a longer gap; says how long and where.
    """
    missing = np.isnan(landmarks).any(axis=(1, 2))
    if missing.all():
        raise UserError("no face found")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        if stop - start > max_gap:
            minutes, seconds = divmod(start / fps, 60)
            raise UserError(f"no face for {(stop - start) / fps:.1f} s at {int(minutes):02d}:{seconds:04.1f}")
    known, every = np.flatnonzero(~missing), np.arange(len(landmarks))
    columns = landmarks.reshape(len(landmarks), -1)
    filled = np.stack([np.interp(every, known, column[known]) for column in columns.T], axis=1)
    return filled.reshape(landmarks.shape).astype(np.float32)


def smooth(landmarks: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along time, `sigma` in frames, 0 for none; takes off the detector's jitter, not the motion.

    At 25 fps sigma = 0.7 keeps 88 % of a motion of 2 Hz and 68 % of one of 5 Hz, and lets 64 % of white jitter through.
    """
    return gaussian_filter1d(landmarks, sigma, axis=0, mode="nearest") if sigma > 0 else landmarks


def face_size(landmarks: np.ndarray) -> float:
    """Mean distance between the ends of the jaw line, pixels."""
    return float(np.linalg.norm(landmarks[:, JAW[0]] - landmarks[:, JAW[1]], axis=-1).mean())


def check_face(landmarks: np.ndarray, width: int, height: int, min_face: float) -> None:
    """Refuse a face that is too small to learn from or that leaves the picture.

    Raises:
        UserError: names the size or the time.
    """
    if (size := face_size(landmarks)) < min_face:
        raise UserError(f"face too small: {size:.1f} pixels from ear to ear, at least {min_face:.0f} are needed")
    allowed = OUTSIDE * size
    beyond = np.maximum(-landmarks, landmarks - [width, height]).max(axis=(1, 2))
    if beyond.max() > allowed:
        raise UserError(
            f"the face leaves the picture: {beyond.max():.0f} pixels outside in frame {int(beyond.argmax())}"
        )


def crop_square(landmarks: np.ndarray, width: int, height: int, margin: float = MARGIN) -> Crop:
    """One still square for the whole clip, with forehead and chin, as HDTF cuts its clips: the head moves in it, the
    room stands.

    The side is `margin` times the face, or more where the face wanders; the square is pushed into the frame, and
    where the frame is too small for it the side is the frame's shorter one. It holds every landmark of every frame
    that lies inside of the frame. Its numbers are even where they can be, as video halves its colours.

    Args:
        landmarks: (T, 68, 2) pixels, no NaN.
        width, height: the frame, pixels.

    Raises:
        UserError: the face wanders further than the frame's shorter side.
    """
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    face = float(np.median((high - low).max(axis=1)))
    frame = np.array([width, height])
    first, last = np.clip(low.min(axis=0), 0, frame), np.clip(high.max(axis=0), 0, frame)
    needed = int(np.ceil((np.ceil(last) - np.floor(first)).max()))
    if needed > min(width, height):
        raise UserError(
            f"the face wanders over {needed} pixels, the frame's shorter side has {min(width, height)}; cut the clip"
        )
    side = min(max(round(margin * face), needed), width, height)
    side += side % 2 if side < min(width, height) else 0
    lowest, highest = np.maximum(np.ceil(last) - side, 0), np.minimum(np.floor(first), frame - side)
    wish = (first + last) / 2 - side * np.array([0.5, FACE_HEIGHT])
    x, y = (_even(*of_axis) for of_axis in zip(wish, lowest, highest, strict=True))
    return Crop(x, y, side)


def _even(wish: float, lowest: float, highest: float) -> int:
    """The even number closest to the wish; an odd one where the limits leave no choice."""
    number = 2 * round(min(max(wish, lowest), highest) / 2)
    number += 2 * (number < lowest) - 2 * (number > highest)
    return int(number if lowest <= number <= highest else lowest)
