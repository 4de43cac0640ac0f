"""The region that is hidden from the network and generated: one policy object for training and inference."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

MaskName = Literal["below_nose", "mouth_safe"]

NOSE_TIP = 30
NOSE_BASE = tuple(range(31, 36))
RIGHT_EYE, LEFT_EYE = tuple(range(36, 42)), tuple(range(42, 48))  # the person's right eye is on the picture's left

# mouth_safe, in units of the distance between the eyes; top and bottom are counted down from the nose's base. On the
# real clips mouth and chin stay inside with a margin and nose and eyes outside; tests/data/test_masks.py measures it.
SAFE_TOP, SAFE_BOTTOM = 0.08, 1.65
SAFE_HALF_WIDTH = 1.2
NOSE_PER_EYES = 0.8  # eyes to nose's base over eye to eye, of a face seen from the front, at most


@dataclass(frozen=True)
class MaskPolicy:
    """A named rule from landmarks to the hidden region.

    `below_nose` hides all rows below the tip of the nose, as the released code does in training.
    `mouth_safe` hides mouth and chin by a shape that is built from eyes and nose only, so that its outline does not
    depend on how far the mouth or the jaw is open. Not in the paper.
    """

    name: MaskName = "mouth_safe"

    def __call__(self, landmarks: np.ndarray, size: int) -> np.ndarray:
        """Map (68, 2) fractions of the side to (size, size) bool, True where the picture is hidden and generated."""
        points = np.asarray(landmarks, dtype=np.float64) * size
        if self.name == "mouth_safe":
            return _mouth_safe(points, size)
        mask = np.zeros((size, size), dtype=bool)
        mask[max(int(points[NOSE_TIP, 1]), 0) :] = True
        return mask


def _mouth_safe(points: np.ndarray, size: int) -> np.ndarray:
    """A rounded box (superellipse of power 4) below the nose, placed and scaled by eyes and nose alone.

    The distance between the eyes changes little when the head nods, the length of the nose little when it turns: the
    larger one gives the size. The box lies below the middle of the eyes, since in a turned head the nose points away
    from the chin.
    """
    right_eye, left_eye = points[list(RIGHT_EYE)].mean(axis=0), points[list(LEFT_EYE)].mean(axis=0)
    between, nose = (right_eye + left_eye) / 2, points[list(NOSE_BASE)].mean(axis=0)
    eyes = max(float(np.linalg.norm(left_eye - right_eye)), 1e-6)
    across = (left_eye - right_eye) / eyes
    down = np.array([-across[1], across[0]])
    length = float((nose - between) @ down)
    unit = max(eyes, length / NOSE_PER_EYES)
    middle = between + (length + (SAFE_TOP + SAFE_BOTTOM) / 2 * unit) * down
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1) - middle
    horizontal = (grid @ across) / (SAFE_HALF_WIDTH * unit)
    vertical = (grid @ down) / ((SAFE_BOTTOM - SAFE_TOP) / 2 * unit)
    return horizontal**4 + vertical**4 <= 1


def hide(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blank the hidden region: (..., 3, H, W) in [-1, 1] and (..., H, W) bool -> a copy with 0 (mid grey) there."""
    return np.where(mask[..., None, :, :], 0, image).astype(image.dtype)
