"""The generated mouth back into the frame of the video it came from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

from difftalk_pl.errors import UserError

REACHES = (0.12, 0.06, 0.03)  # sides of the square: deviations over which colours are carried inwards
FADE = 0.05  # of the largest weight: below it, a reach has no say
WIDEST = 0.25  # sides of the square that a feather may take: the mask has to have a middle
LARGEST_SHIFT = 48  # levels by which colours are moved at most: more is another content, not another colour


class Region(NamedTuple):
    """Where a frame is changed: rows and columns, and how much of the generated picture each pixel takes, (h, w)."""

    rows: slice
    columns: slice
    alpha: np.ndarray


@dataclass(frozen=True)
class Paste:
    """Blends squares into frames.

    Args:
        feather: width of the blend inside of the mask's outline, in sides of the square; 0 is a hard edge.
        colour: move the generated colours to those of the frame at the outline. Not in the paper.
    """

    feather: float = 0.03
    colour: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.feather <= WIDEST:
            raise UserError(f"paste.feather {self.feather:g}: expected 0 to {WIDEST:g} sides of the square")

    def __call__(
        self, frame: np.ndarray, generated: np.ndarray, true: np.ndarray, mask: np.ndarray, box: np.ndarray
    ) -> np.ndarray:
        """A copy of the frame with the generated mouth in it; every pixel outside of `region` is the frame's own.

        Args:
            frame: (H, W, 3) uint8.
            generated, true: (S, S, 3) uint8, the drawn square and the one that was cut from the frame.
            mask: (S, S) bool, what was hidden and drawn.
            box: (3,) left, top and side of the square in the frame, pixels, with fractions.
        """
        region = self.region(mask, box, frame.shape)
        if region is None:
            return frame
        if self.colour:
            generated = match_colour(generated, true, mask, self.feather)
        patch = _enlarged(generated, region, box).astype(np.float32)
        alpha = region.alpha[..., None]
        under = frame[region.rows, region.columns]
        result = frame.copy()
        result[region.rows, region.columns] = np.where(alpha > 0, np.rint(under + alpha * (patch - under)), under)
        return result

    def region(self, mask: np.ndarray, box: np.ndarray, shape: tuple[int, ...]) -> Region | None:
        """Where a frame of this shape is changed; None where the mask lies outside of it."""
        soft = feathered(mask, self.feather * len(mask))
        inside = np.argwhere(soft > 0)
        if not len(inside):
            return None
        scale = box[2] / len(mask)
        low = np.floor(box[[1, 0]] + inside.min(axis=0) * scale).astype(int)
        high = np.ceil(box[[1, 0]] + (inside.max(axis=0) + 1) * scale).astype(int)
        low = np.maximum(np.maximum(low, np.ceil(box[[1, 0]]).astype(int)), 0)  # whole pixels of the square alone
        high = np.minimum(np.minimum(high, np.floor(box[[1, 0]] + box[2]).astype(int)), shape[:2])
        if (high <= low).any():
            return None
        rows, columns = slice(low[0], high[0]), slice(low[1], high[1])
        alpha = _enlarged(soft, Region(rows, columns, soft), box)
        return Region(rows, columns, np.where(alpha < 1 / 512, 0, alpha))


def feathered(mask: np.ndarray, width: float) -> np.ndarray:
    """(S, S) bool -> (S, S) float32: 0 outside, rising within `width` pixels of the outline, 1 deeper inside."""
    if width <= 0:
        return mask.astype(np.float32)
    depth = np.clip(depth_inside(mask) / (width + 1), 0, 1)
    return (depth * depth * (3 - 2 * depth)).astype(np.float32)  # no edge in its slope


def match_colour(generated: np.ndarray, true: np.ndarray, mask: np.ndarray, feather: float) -> np.ndarray:
    """The generated square, its colours moved by what it misses the true ones at the mask's outline.

    The difference in the band where both are blended is carried inwards: its coarse part far, its fine part less and
    less, as a membrane that is held at the outline would. All (S, S, 3) uint8.
    """
    side = len(mask)
    band = border_band(mask, feather)[..., None].astype(np.float32)
    missing = np.clip(true.astype(np.float32) - generated, -LARGEST_SHIFT, LARGEST_SHIFT)
    shift = np.broadcast_to((missing * band).sum(axis=(0, 1)) / max(float(band.sum()), 1.0), missing.shape).copy()
    for share in REACHES:
        sigma = (share * side, share * side, 0)
        weight = gaussian_filter(band, sigma)
        shift += gaussian_filter((missing - shift) * band, sigma) / (weight + FADE * max(float(weight.max()), 1e-6))
    moved = np.where(mask[..., None], generated + shift, generated)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def border_band(mask: np.ndarray, feather: float) -> np.ndarray:
    """(S, S) bool: the hidden pixels next to the outline."""
    width = max(feather * len(mask), 1.0)
    return mask & (depth_inside(mask) <= width)


def border_difference(generated: np.ndarray, true: np.ndarray, mask: np.ndarray, feather: float) -> float:
    """How far the colours of two squares are apart at the outline, in levels of 255: the mean over the band of the
    absolute difference of local means, in which single pixels and noise do not count. (S, S, 3) uint8 each."""
    band = border_band(mask, feather)[..., None].astype(np.float32)
    sigma = (feather * len(mask), feather * len(mask), 0)
    difference = gaussian_filter((generated.astype(np.float32) - true) * band, sigma)
    local = difference / np.maximum(gaussian_filter(band, sigma), 1e-6)
    return float((np.abs(local) * band).sum() / (3 * max(float(band.sum()), 1.0)))


def depth_inside(mask: np.ndarray) -> np.ndarray:
    """(S, S): distance of every hidden pixel from the nearest one that is not, beyond the square's edge included."""
    return distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def _enlarged(picture: np.ndarray, region: Region, box: np.ndarray) -> np.ndarray:
    """The part of the square that covers these pixels of the frame, at their size."""
    scale = len(picture) / box[2]
    left, top = (region.columns.start - box[0]) * scale, (region.rows.start - box[1]) * scale
    right, bottom = (region.columns.stop - box[0]) * scale, (region.rows.stop - box[1]) * scale
    size = (region.columns.stop - region.columns.start, region.rows.stop - region.rows.start)
    corners = (max(left, 0), max(top, 0), min(right, len(picture)), min(bottom, len(picture)))
    soft = picture.ndim == 2
    image = Image.fromarray(picture.astype(np.float32) if soft else picture)
    filters = Image.Resampling.BILINEAR if soft else Image.Resampling.BICUBIC
    return np.asarray(image.resize(size, filters, box=corners))
