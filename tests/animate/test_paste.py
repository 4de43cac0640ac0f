"""The generated square back in its frame: pixels outside are the frame's own, geometry and colours in closed form."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from difftalk_pl.animate.follow import cut_square
from difftalk_pl.animate.paste import FEATHER, blend_region, match_colour, paste
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.synthetic.dataset import perform

SIZE = 96
POINTS = perform(0, 0, 0.04).landmarks()[0]
BOXES = {  # frame (height, width), box
    "true size": ((150, 201), (33.0, 20.0, 96.0)),
    "enlarged": ((301, 403), (50.2, 30.7, 241.3)),
    "shrunk": ((97, 131), (21.6, 11.2, 53.9)),
    "top left": ((151, 203), (0.0, 0.0, 120.4)),
    "bottom right": ((151, 203), (203 - 120.4, 151 - 120.4, 120.4)),
    "whole frame": ((111, 111), (0.0, 0.0, 111.0)),
}
everywhere = pytest.mark.parametrize("shape, box", BOXES.values(), ids=BOXES)
both_masks = pytest.mark.parametrize("name", ["mouth_safe", "below_nose"])


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(4 * x + 2 * y), np.cos(3 * y - x), np.sin(5 * x) * np.cos(2 * y)]
    return np.rint(128 + 70 * np.stack(waves, axis=-1)).astype(np.uint8)


def mask_of(name: str) -> np.ndarray:
    return MaskPolicy(name)(POINTS, SIZE)  # type: ignore[arg-type]


def disc(radius: float = 0.3) -> np.ndarray:
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    return x * x + y * y <= radius * radius


@everywhere
@both_masks
def test_every_pixel_outside_of_the_mask_is_the_frames_own(shape, box, name):
    """Which pixels the mask may reach is worked out here from the box; resizing blurs its edge by a pixel."""
    frame, mask, box = noise(0, *shape), mask_of(name), np.array(box)
    before = frame.copy()
    result = paste(frame, noise(1, SIZE, SIZE), noise(2, SIZE, SIZE), mask, box)
    np.testing.assert_array_equal(frame, before)
    assert result.shape == frame.shape and result.dtype == np.uint8
    scale, changed, allowed = box[2] / SIZE, (frame != result).any(axis=-1), np.zeros(shape, bool)
    reach = max(scale, 1.0)
    for row, column in np.argwhere(mask):
        top, left = box[1] + row * scale - reach, box[0] + column * scale - reach
        bottom, right = top + scale + 2 * reach, left + scale + 2 * reach
        allowed[max(int(top), 0) : int(np.ceil(bottom)), max(int(left), 0) : int(np.ceil(right))] = True
    assert not changed[~allowed].any()
    rows, columns, alpha = blend_region(mask, box, shape)
    assert alpha.min() >= 0 and alpha.max() <= 1
    inside = np.zeros(shape)
    inside[rows, columns] = alpha
    assert not changed[inside == 0].any() and changed[inside > 0.5].mean() > 0.9


@everywhere
@both_masks
def test_the_true_square_pasted_back_changes_nothing_to_see(shape, box, name):
    frame, box = smooth_picture(*shape), np.array(box)
    true = cut_square(frame, box, SIZE)
    assert np.abs(paste(frame, true, true, mask_of(name), box).astype(int) - frame).max() <= 2


def difference_at_outline(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Mean difference of local colours in the band within the outline, in levels."""
    band = mask & ~binary_erosion(mask, iterations=round(FEATHER * SIZE))
    sigma = (FEATHER * SIZE, FEATHER * SIZE, 0)
    difference = gaussian_filter((one.astype(float) - other) * band[..., None], sigma)
    return float(np.abs(difference / np.maximum(gaussian_filter(band[..., None] * 1.0, sigma), 1e-6))[band].mean())


@both_masks
def test_colours_that_differ_are_matched_at_the_outline(name):
    """Another light, stronger on one side."""
    true, mask = smooth_picture(SIZE, SIZE), mask_of(name)
    shade = np.linspace(4, 20, SIZE)[None, :, None] * [1.0, 0.5, -0.5]
    generated = np.clip(np.rint(true + shade), 0, 255).astype(np.uint8)
    assert difference_at_outline(generated, true, mask) > 5
    assert difference_at_outline(match_colour(generated, true, mask), true, mask) < 2


def test_what_is_drawn_in_the_middle_keeps_its_contrast():
    """A dark mouth in skin that is twelve levels too light: the skin is matched, the mouth stays as dark as drawn."""
    true, mask = np.full((SIZE, SIZE, 3), 150, np.uint8), disc()
    generated = np.full((SIZE, SIZE, 3), 162, np.uint8)
    generated[44:54, 38:58] = 30
    matched = match_colour(generated, true, mask).astype(int)
    np.testing.assert_allclose(matched[44:54, 38:58], 18, atol=1)
    ring = mask.copy()
    ring[40:58, 34:62] = False
    np.testing.assert_allclose(matched[ring], 150, atol=1)
