"""A contact sheet of a prepared clip, for looking: what is stored, with landmarks and mask drawn on it."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage.draw import disk
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.masks import MaskPolicy

COLUMNS, ROWS, CELL = 4, 3, 256  # frames across, frames down, pixels of each
POINT_COLOUR, MASK_COLOUR = (0, 255, 0), (255, 64, 0)


def write_overlay(clip: Clip, path: Path, policy: MaskPolicy | None = None) -> None:
    """Write frames spread evenly over the clip into one picture."""
    reader = clip.reader()
    numbers = np.linspace(0, clip.frames - 1, COLUMNS * ROWS).round().astype(int)
    cells = [draw(reader[int(k)], clip.landmarks[k], policy or MaskPolicy()) for k in numbers]
    reader.close()
    rows = [np.concatenate(cells[row * COLUMNS : (row + 1) * COLUMNS], axis=1) for row in range(ROWS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def draw(frame: np.ndarray, landmarks: np.ndarray, policy: MaskPolicy) -> np.ndarray:
    """(S, S, 3) uint8 and (68, 2) fractions -> (CELL, CELL, 3) uint8 with the points and the mask's outline."""
    image = np.round(resize(frame, (CELL, CELL), preserve_range=True, anti_aliasing=True)).astype(np.uint8)
    image[find_boundaries(policy(landmarks, CELL), mode="inner")] = MASK_COLOUR
    for x, y in landmarks * CELL - 0.5:
        image[disk((y, x), 1.5, shape=image.shape[:2])] = POINT_COLOUR
    return image
