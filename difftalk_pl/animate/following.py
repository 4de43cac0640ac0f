"""The square that follows a head through a video: smoothed over time, without jumps but for cuts."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.references import read_picture
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import FACE_HEIGHT, MARGIN, OUTSIDE, face_size, smooth
from difftalk_pl.faces.track import follow_face

CALM = 0.4  # s, deviation of the smoothing of the square's place and size
STEADY = 0.7  # frames at 25 fps, deviation of the smoothing of landmarks, as prepare smooths them
CUT = 0.5  # face sizes: one that moves further from one frame in which it is seen to the next was cut


@dataclass(frozen=True)
class Followed:
    """A face through a video.

    landmarks: (T, 68, 2) float32, pixels of the frame; held or interpolated where there is no face.
    boxes: (T, 3) float64, left, top and side of the square, pixels, with fractions, inside of the frame.
    usable: (T,) bool, False where no face is to be drawn.
    reasons: frames by why they are not usable.
    shots: (T,) number of the stretch between cuts.
    """

    landmarks: np.ndarray
    boxes: np.ndarray
    usable: np.ndarray
    reasons: dict[str, int]
    shots: np.ndarray

    @property
    def fractions(self) -> np.ndarray:
        """(T, 68, 2) float32, landmarks as fractions of their square; dlib counts from a pixel's middle."""
        corners, sides = self.boxes[:, None, :2], self.boxes[:, None, 2:]
        return ((self.landmarks + 0.5 - corners) / sides).astype(np.float32)


def follow(
    landmarks: np.ndarray, width: int, height: int, *, fps: float = FPS, min_face: float = 32, max_gap: float = 0.5
) -> Followed:
    """Where to cut every frame of a video.

    Args:
        landmarks: (T, 68, 2), pixels, NaN where there is no face.
        min_face: smallest face, pixels from ear to ear; a frame with a smaller one is not usable.
        max_gap: seconds without a face that are bridged; longer ones are not usable.

    Raises:
        UserError: no frame is usable; says why.
    """
    missing = np.isnan(landmarks).any(axis=(1, 2))
    if missing.all():
        raise UserError("no face found")
    parts = _parts(landmarks, missing)
    filled = [_filled(landmarks[part], missing[part]) for part in parts]
    points = np.concatenate([smooth(part, STEADY * fps / FPS) for part in filled])
    usable, reasons = _usable(points, _faceless(missing, parts, round(max_gap * fps)), width, height, min_face)
    if not usable.any():
        raise UserError(f"no usable face: {', '.join(f'{reason} in {n} frames' for reason, n in reasons.items())}")
    boxes = np.concatenate([_squares(points[part], width, height, CALM * fps) for part in parts])
    shots = np.concatenate([np.full(part.stop - part.start, number) for number, part in enumerate(parts)])
    return Followed(points.astype(np.float32), boxes, usable, reasons, shots)


def cut_square(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """A square with fractions of pixels at the clip's size, (size, size, 3) uint8; Lanczos, so that nothing aliases."""
    left, top, side = (float(value) for value in box)
    corners = (left, top, min(left + side, frame.shape[1]), min(top + side, frame.shape[0]))
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=corners))


def face_in(path: Path, size: int, choice: str = "largest") -> np.ndarray:
    """The face of a picture as a clip's frame, (size, size, 3) uint8.

    Raises:
        UserError: no picture, or no face in it.
    """
    picture = read_picture(path)
    try:
        found = follow(follow_face([picture], choice).landmarks, picture.shape[1], picture.shape[0])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return cut_square(picture, found.boxes[0], size)


def _filled(landmarks: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Straight lines through all gaps, the nearest frame held at the ends."""
    known, every = np.flatnonzero(~missing), np.arange(len(landmarks))
    columns = landmarks.reshape(len(landmarks), -1)
    filled = np.stack([np.interp(every, known, column[known]) for column in columns.T], axis=1)
    return filled.reshape(landmarks.shape)


def _parts(landmarks: np.ndarray, missing: np.ndarray) -> list[slice]:
    """Stretches between cuts, over which motion may be smoothed; a gap with a cut in it ends the stretch before."""
    known = np.flatnonzero(~missing)
    centre, size = _centre_and_size(landmarks[known])
    step = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.minimum(size[1:], size[:-1])
    resized = np.abs(np.diff(np.log(size))) > CUT
    edges = [0, *known[1:][(step > CUT) | resized].tolist(), len(landmarks)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def _faceless(missing: np.ndarray, parts: list[slice], max_gap: int) -> np.ndarray:
    """(T,) bool: in a gap of more than `max_gap` frames, or in one after which the face is elsewhere."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8)))
    cuts = {part.start for part in parts[1:]}
    faceless = np.zeros(len(missing), bool)
    for start, stop in edges.reshape(-1, 2).tolist():
        faceless[start:stop] = stop - start > max_gap or stop in cuts
    return faceless


def _usable(
    points: np.ndarray, faceless: np.ndarray, width: int, height: int, min_face: float
) -> tuple[np.ndarray, dict[str, int]]:
    """(T,) bool, and frames by the reason for which they are not."""
    size = np.array([face_size(one[None]) for one in points])
    beyond = np.maximum(-points, points - [width, height]).max(axis=(1, 2))
    tests = {
        "no face": faceless,
        f"a face of less than {min_face:g} pixels from ear to ear": size < min_face,
        "a face that leaves the picture": beyond > OUTSIDE * size,
    }
    usable, reasons = np.ones(len(points), bool), {}
    for reason, bad in tests.items():
        if count := int((bad & usable).sum()):
            reasons[reason] = count
        usable &= ~bad
    return usable, reasons


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
