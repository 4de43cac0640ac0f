"""The generated mouth back into the frame of the video it came from."""

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter

FEATHER = 0.03  # sides of the square: width of the blend inside of the mask's outline
REACHES = (0.12, 0.06, 0.03)  # sides of the square: deviations over which colours are carried inwards
FADE = 0.05  # of the largest weight: below it, a reach has no say
LARGEST_SHIFT = 48  # levels by which colours are moved at most: more is another content, not another colour


def paste(frame: np.ndarray, generated: np.ndarray, true: np.ndarray, mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return a copy of the frame with the generated mouth; every pixel outside of `blend_region` is the frame's own.

    Args:
        frame: (H, W, 3) uint8.
        generated, true: (S, S, 3) uint8, the drawn square and the one that was cut from the frame.
        mask: (S, S) bool, what was hidden and drawn.
        box: (3,) left, top and side of the square in the frame, pixels, with fractions.
    """
    if not mask.any():
        return frame
    rows, columns, alpha = blend_region(mask, box, frame.shape)
    patch = _resized(match_colour(generated, true, mask), rows, columns, box).astype(np.float32)
    under, result = frame[rows, columns], frame.copy()
    alpha = alpha[..., None]
    result[rows, columns] = np.where(alpha > 0, np.rint(under + alpha * (patch - under)), under)
    return result


def blend_region(mask: np.ndarray, box: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice, np.ndarray]:
    """Return the rows and columns of a frame that change, whole pixels of the square, and the share of the generated
    picture in each of their pixels, (h, w)."""
    soft = feathered(mask, FEATHER * len(mask))
    inside = np.argwhere(soft > 0)
    corner, scale = box[[1, 0]], box[2] / len(mask)
    low = np.floor(corner + inside.min(axis=0) * scale)
    high = np.ceil(corner + (inside.max(axis=0) + 1) * scale)
    low = np.maximum(low, np.ceil(corner)).astype(int)
    high = np.minimum(np.minimum(high, np.floor(corner + box[2])), shape[:2]).astype(int)
    rows, columns = (slice(*ends) for ends in zip(low, high))
    alpha = _resized(soft, rows, columns, box)
    return rows, columns, np.where(alpha < 1 / 512, 0, alpha)


def feathered(mask: np.ndarray, width: float) -> np.ndarray:
    """(S, S) bool -> (S, S) float32: 0 outside, rising within `width` pixels of the outline, 1 deeper inside."""
    depth = np.clip(_depth(mask) / (width + 1), 0, 1)
    return (depth * depth * (3 - 2 * depth)).astype(np.float32)  # no edge in its slope


def match_colour(generated: np.ndarray, true: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Move the colours of the generated square by what they miss at the mask's outline. Not in the paper.

    The difference where both are blended is carried inwards, its coarse part further. All (S, S, 3) uint8.
    """
    side = len(mask)
    band = (mask & (_depth(mask) <= max(FEATHER * side, 1.0)))[..., None].astype(np.float32)
    missing = np.clip(true.astype(np.float32) - generated, -LARGEST_SHIFT, LARGEST_SHIFT)
    shift = np.broadcast_to((missing * band).sum(axis=(0, 1)) / band.sum(), missing.shape).copy()
    for share in REACHES:
        sigma = (share * side, share * side, 0)
        weight = gaussian_filter(band, sigma)
        shift += gaussian_filter((missing - shift) * band, sigma) / (weight + FADE * float(weight.max()))
    moved = np.where(mask[..., None], generated + shift, generated)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance of every hidden pixel from the nearest one that is not, the square's edge included, (S, S)."""
    return distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def _resized(picture: np.ndarray, rows: slice, columns: slice, box: np.ndarray) -> np.ndarray:
    """The part of the square that covers these pixels of the frame, at their size."""
    scale, side = len(picture) / box[2], len(picture)
    left, right = (min(max((x - box[0]) * scale, 0), side) for x in (columns.start, columns.stop))
    top, bottom = (min(max((y - box[1]) * scale, 0), side) for y in (rows.start, rows.stop))
    size = (columns.stop - columns.start, rows.stop - rows.start)
    filters = Image.Resampling.BILINEAR if picture.ndim == 2 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size, filters, box=(left, top, right, bottom)))
