"""The square that follows a face through a video: smoothed over time, with jumps at cuts alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d, label, maximum_filter1d

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, Clip, write_clip
from difftalk_pl.data.features.windows import FPS
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import FACE_HEIGHT, JAW, MARGIN, OUTSIDE, fill_gaps, smooth

SQUARE_SIGMA = 0.4  # s, of the Gaussian that smooths the square's place and size
LANDMARK_SIGMA = 0.7  # frames at 25 fps, as prepare smooths landmarks
MIN_FACE = 32  # pixels from ear to ear of the smallest face that is drawn
MAX_GAP = 0.5  # s without a face that are bridged; frames of longer gaps are not usable
CUT = 0.5  # face sizes: a face that moves further from one frame to the next was cut


@dataclass(frozen=True)
class FacePath:
    """A face through a video.

    boxes: (T, 3) float64, left, top and side of the square, pixels, with fractions, inside of the frame.
    landmarks: (T, 68, 2) float32, fractions of the square; held or interpolated where there is no face.
    usable: (T,) bool, False where no face is to be drawn.
    reasons: how many frames are not usable, by the reason.
    shots: (T,) number of the stretch between two cuts.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    usable: np.ndarray
    reasons: dict[str, int]
    shots: np.ndarray


def follow(landmarks: np.ndarray, width: int, height: int, fps: float = FPS) -> FacePath:
    """Decide where to cut every frame of a video with landmarks (T, 68, 2), pixels, NaN where there is no face.

    Raises:
        UserError: no frame is usable; says why.
    """
    missing = np.isnan(landmarks).any(axis=(1, 2))
    cuts = [] if missing.all() else _cuts(landmarks, missing)
    parts = [slice(start, stop) for start, stop in pairwise([0, *cuts, len(landmarks)])]
    filled = [fill_gaps(landmarks[part], len(landmarks)) for part in parts]
    points = np.concatenate([smooth(part, LANDMARK_SIGMA * fps / FPS) for part in filled])
    boxes = np.concatenate([_squares(points[part], width, height, SQUARE_SIGMA * fps) for part in parts])
    shots = np.searchsorted(cuts, np.arange(len(landmarks)), side="right")
    size = np.linalg.norm(points[:, JAW[0]] - points[:, JAW[1]], axis=-1)
    beyond = np.maximum(-points, points - [width, height]).max(axis=(1, 2))
    gaps, _ = label(missing)
    tests = {
        "no face": missing & (np.bincount(gaps) > round(MAX_GAP * fps))[gaps],
        f"a face of less than {MIN_FACE} pixels from ear to ear": size < MIN_FACE,
        "a face that leaves the picture": beyond > OUTSIDE * size,
    }
    reason = np.select(list(tests.values()), list(tests), "")
    reasons = {name: int((reason == name).sum()) for name in tests if (reason == name).any()}
    if (reason != "").all():
        raise UserError(f"no usable face: {', '.join(f'{name} in {n} frames' for name, n in reasons.items())}")
    fractions = (points + 0.5 - boxes[:, None, :2]) / boxes[:, None, 2:]  # dlib counts from a pixel's middle
    return FacePath(boxes, fractions.astype(np.float32), reason == "", reasons, shots)


def cut_square(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Cut a square with fractions of pixels, (size, size, 3) uint8; Lanczos, so that nothing aliases."""
    left, top, side = (float(value) for value in box)
    corners = (left, top, min(left + side, frame.shape[1]), min(top + side, frame.shape[0]))
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=corners))


def cut_clip(frames: Iterable[np.ndarray], path: FacePath, size: int, root: Path) -> Clip:
    """Write the squares of the usable frames, (H, W, 3) uint8, as a prepared clip without sound."""
    squares = (cut_square(frame, box, size) for frame, box, good in zip(frames, path.boxes, path.usable) if good)
    points = path.landmarks[path.usable]
    silence = np.zeros(len(points) * SAMPLES_PER_FRAME, np.int16)
    write_clip(root, "person", frames=squares, audio=silence, landmarks=points, features=[], info={})
    return Clip(root, "person", len(points))


def _cuts(landmarks: np.ndarray, missing: np.ndarray) -> list[int]:
    """Frames at which the face is suddenly elsewhere or of another size."""
    known = np.flatnonzero(~missing)
    centre, size = _centre_and_size(landmarks[known])
    step = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.minimum(size[1:], size[:-1])
    return known[1:][(step > CUT) | (np.abs(np.diff(np.log(size))) > CUT)].tolist()


def _squares(points: np.ndarray, width: int, height: int, sigma: float) -> np.ndarray:
    """(T, 3): the smoothed place of the face and `MARGIN` times its size, or more where it moves fast."""
    centre, size = _centre_and_size(points)
    centre = gaussian_filter1d(centre, sigma, axis=0, mode="nearest")
    reach = np.abs(points - centre[:, None]).max(axis=(1, 2)) / (1 - FACE_HEIGHT)
    needed = maximum_filter1d(np.maximum(MARGIN * size, reach), 2 * round(sigma) + 1, mode="nearest")
    side = np.minimum(gaussian_filter1d(needed, sigma, mode="nearest"), min(width, height))[:, None]
    corner = np.clip(centre + 0.5 - side * [0.5, FACE_HEIGHT], 0, [width, height] - side)
    return np.concatenate([corner, side], axis=1)


def _centre_and_size(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2) and (T,): the middle and the longer side of the box around the landmarks."""
    low, high = points.min(axis=1), points.max(axis=1)
    return (low + high) / 2, (high - low).max(axis=1)
