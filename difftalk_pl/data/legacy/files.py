"""Single files of the released code's data layout: images, landmarks, windows of audio features.

Every error names the file as it stands in the layout, and what to do.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from difftalk_pl.data.faces.framing import Crop, check_face
from difftalk_pl.data.faces.squares import cut_frame
from difftalk_pl.data.files.arrays import map_array
from difftalk_pl.data.legacy.audio import SHAPE
from difftalk_pl.data.source import to_fractions
from difftalk_pl.errors import UserError

POINTS = (68, 2)


class Pictures(NamedTuple):
    """What is known of a clip before its images are decoded."""

    sides: list[int]  # pixels
    landmarks: np.ndarray  # (T, 68, 2) float32, fractions of each image's side


def read_pictures(images: Iterable[Path], landmarks: Iterable[np.ndarray], min_face: float) -> Pictures:
    """Sizes from the headers of images, and landmarks as fractions of them.

    Sides may differ from frame to frame: the released code scales every image and its landmarks by its own side.

    Args:
        landmarks: (68, 2) pixels of each image.
        min_face: smallest face, from ear to ear, pixels of the largest image.

    Raises:
        UserError: an image is damaged or not square, the face is too small or leaves the picture.
    """
    sides, fractions = [], []
    for path, points in zip(images, landmarks, strict=True):
        sides.append(_side(path))
        fractions.append(to_fractions(points, Crop(0, 0, sides[-1])))
    every, largest = np.stack(fractions), max(sides)
    check_face(every * largest, largest, largest, min_face)
    return Pictures(sides, every)


def read_image(path: Path, size: int) -> np.ndarray:
    """A square image at the clip's size, (size, size, 3) uint8 RGB. Raises UserError where it is damaged."""
    with _damage(path), Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return cut_frame(pixels, Crop(0, 0, len(pixels)), size)


def read_landmarks(path: Path) -> np.ndarray:
    """(68, 2) float32, pixels of the image, from lines of `x y`. Raises UserError where they are not."""
    name, remedy = _short(path), "detect its landmarks again"
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        points = np.array(rows, dtype=np.float64)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{name} does not hold lines of `x y`; {remedy}") from error
    if points.shape != POINTS:
        raise UserError(f"{name} holds {len(rows)} rows, expected {POINTS[0]} of `x y`; {remedy}")
    if not np.isfinite(points).all():
        raise UserError(f"{name} holds numbers that are not finite; {remedy}")
    return points.astype(np.float32)


def read_windows(path: Path) -> np.ndarray:
    """A file of audio_smooth as float32; (8, 16, 29) if it is what it should be. Another shape is not even read.

    Raises:
        UserError: damaged, holds objects, or not finite.
    """
    try:
        mapped = map_array(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{_short(path)} cannot be read ({error}); write it anew") from error
    if mapped.shape != SHAPE:
        return mapped
    windows = np.array(mapped, dtype=np.float32)
    if not np.isfinite(windows).all():
        raise UserError(f"{_short(path)} holds numbers that are not finite; write it anew")
    return windows


def _side(path: Path) -> int:
    with _damage(path), Image.open(path) as image:
        width, height = image.size
    if width != height:
        raise UserError(f"{_short(path)} has {width} x {height} pixels; crop the images of this layout square")
    return width


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever Pillow raises about a file, as one line."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{_short(path)} is damaged ({error}); extract it again") from error


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
