"""The generated square back in its frame: pixels outside are the frame's own, geometry and colours in closed form."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from difftalk_pl.animate.following import cut_square
from difftalk_pl.animate.paste import Paste, Region, border_difference, feathered, match_colour
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.synthetic.dataset import perform

SIZE = 96
POINTS = perform(0, 0, 0.04).landmarks()[0]
HARD = Paste(feather=0, colour=False)
BOXES = {  # frame (height, width), box
    "true size": ((150, 201), (33.0, 20.0, 96.0)),
    "fractions": ((151, 203), (40.37, 18.81, 96.5)),
    "enlarged": ((301, 403), (50.2, 30.7, 241.3)),
    "shrunk": ((97, 131), (21.6, 11.2, 53.9)),
    "top left": ((151, 203), (0.0, 0.0, 120.4)),
    "bottom right": ((151, 203), (203 - 120.4, 151 - 120.4, 120.4)),
    "whole frame": ((111, 111), (0.0, 0.0, 111.0)),
}


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(4 * x + 2 * y), np.cos(3 * y - x), np.sin(5 * x) * np.cos(2 * y)]
    return np.rint(128 + 70 * np.stack(waves, axis=-1)).astype(np.uint8)


def mask_of(name: str, size: int = SIZE) -> np.ndarray:
    return MaskPolicy(name)(POINTS, size)  # type: ignore[arg-type]


def disc(size: int = SIZE, radius: float = 0.3) -> np.ndarray:
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return x * x + y * y <= radius * radius


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before != after).any(axis=-1)


# What is left as it was


@pytest.mark.parametrize("feather", [0, 0.03, 0.1])
@pytest.mark.parametrize("name", ["mouth_safe", "below_nose"])
@pytest.mark.parametrize("shape, box", BOXES.values(), ids=BOXES)
def test_every_pixel_outside_of_the_mask_is_the_frames_own(shape, box, name, feather):
    """Which pixels the mask may reach is worked out here from the box, half a pixel of the square more for its edge."""
    frame, mask, box = noise(0, *shape), mask_of(name), np.array(box)
    before, paste = frame.copy(), Paste(feather)
    result = paste(frame, noise(1, SIZE, SIZE), noise(2, SIZE, SIZE), mask, box)
    np.testing.assert_array_equal(frame, before)
    assert result.shape == frame.shape and result.dtype == np.uint8
    scale = box[2] / SIZE
    allowed = np.zeros(shape, bool)
    reach = max(scale, 1.0)  # pixels of the frame, by which an edge is blurred when the mask is resized
    for row, column in np.argwhere(mask):
        top, left = box[1] + row * scale - reach, box[0] + column * scale - reach
        bottom, right = top + scale + 2 * reach, left + scale + 2 * reach
        allowed[max(int(top), 0) : int(np.ceil(bottom)), max(int(left), 0) : int(np.ceil(right))] = True
    assert not changed(frame, result)[~allowed].any()
    region = paste.region(mask, box, shape)
    alpha = np.zeros(shape)
    alpha[region.rows, region.columns] = region.alpha
    assert not changed(frame, result)[alpha == 0].any()
    assert changed(frame, result)[alpha > 0.5].mean() > 0.9


def test_an_empty_mask_changes_nothing():
    frame = noise(0, 120, 130)
    result = Paste()(frame, noise(1, 64, 64), noise(2, 64, 64), np.zeros((64, 64), bool), np.array([3.5, 4.5, 80]))
    np.testing.assert_array_equal(result, frame)


# Where it lands


@pytest.mark.parametrize("shape, box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("row, column", [(48, 48), (60, 37), (33, 58)])
def test_a_dot_lands_where_the_square_says(shape, box, row, column):
    generated = np.zeros((SIZE, SIZE, 3), np.uint8)
    generated[row - 1 : row + 2, column - 1 : column + 2] = 255
    frame, box = np.zeros((*shape, 3), np.uint8), np.array(box)
    light = HARD(frame, generated, generated, disc(), box)[..., 1].astype(float)
    y, x = np.indices(shape) + 0.5
    found = np.array([(x * light).sum(), (y * light).sum()]) / light.sum()
    expected = box[:2] + (np.array([column, row]) + 0.5) * box[2] / SIZE
    np.testing.assert_allclose(found, expected, atol=0.25)


@pytest.mark.parametrize("shape, box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("name", ["mouth_safe", "below_nose"])
def test_the_true_square_pasted_back_changes_nothing_to_see(shape, box, name):
    frame, box = smooth_picture(*shape), np.array(box)
    true = cut_square(frame, box, SIZE)
    result = Paste()(frame, true, true, mask_of(name), box)
    assert np.abs(result.astype(int) - frame).max() <= 2


def test_in_the_middle_stands_the_generated_picture_and_nothing_else():
    frame, generated = noise(0, 140, 150), noise(1, SIZE, SIZE)
    result = Paste(0.05, colour=False)(frame, generated, generated, disc(), np.array([20.0, 30.0, SIZE]))
    deep = binary_erosion(disc(), iterations=8)
    np.testing.assert_array_equal(result[30:126, 20:116][deep], generated[deep])


def test_an_enlarged_square_is_smooth_and_not_made_of_blocks():
    generated = smooth_picture(SIZE, SIZE)
    frame = np.zeros((420, 420, 3), np.uint8)
    result = HARD(frame, generated, generated, disc(), np.array([10.0, 10.0, 4 * SIZE]))
    inner = result[150:270, 150:270].astype(int)
    assert np.abs(np.diff(inner, n=2, axis=0)).max() <= 2


# The blend


@pytest.mark.parametrize("width", [1, 3, 12.5])
def test_the_blend_rises_from_the_outline_inward(width):
    """A straight edge: depth n of pixels n from the edge, a smooth step over `width`."""
    mask = np.zeros((60, 60), bool)
    mask[:, 20:] = True
    soft = feathered(mask, width)[30]
    assert (soft[:20] == 0).all() and (np.diff(soft[:40]) >= 0).all()
    assert 0 < soft[20] < 1 or width < 1
    np.testing.assert_array_equal(soft[20 + int(np.ceil(width)) : 60 - int(np.ceil(width)) - 1], 1)
    depth = np.arange(1, 20) / (width + 1)
    steps = np.where(depth < 1, 3 * depth**2 - 2 * depth**3, 1)
    np.testing.assert_allclose(soft[20:39], steps, atol=1e-6)
    assert (soft[-1:] == soft[20]).all(), "the square's own edge is an outline, too"


def test_without_a_feather_the_edge_is_hard():
    np.testing.assert_array_equal(feathered(disc(), 0), disc())
    frame, box = noise(0, 120, 120), np.array([7.0, 9.0, SIZE])
    result = HARD(frame, 255 - frame[9:105, 7:103], noise(1, SIZE, SIZE), disc(), box)
    expected = frame.copy()
    expected[9:105, 7:103][disc()] = 255 - expected[9:105, 7:103][disc()]
    np.testing.assert_array_equal(result, expected)


def test_the_region_is_whole_pixels_of_frame_and_square():
    for shape, box in BOXES.values():
        region = Paste().region(np.ones((SIZE, SIZE), bool), np.array(box), shape)
        assert isinstance(region, Region) and region.alpha.shape == (
            region.rows.stop - region.rows.start,
            region.columns.stop - region.columns.start,
        )
        low, high = np.array([region.columns.start, region.rows.start]), [region.columns.stop, region.rows.stop]
        assert (low >= np.array(box)[:2]).all() and (high <= np.array(box)[:2] + box[2] + 1e-9).all()
        assert region.alpha.min() >= 0 and region.alpha.max() <= 1


@pytest.mark.parametrize("box", [(-20.0, -30.0, 100.0), (60.0, 50.0, 100.0), (-150.0, 20.0, 100.0), (500.0, 0.0, 90.0)])
def test_what_lies_beyond_the_frame_is_cut_off(box):
    """The part inside lands as it does in a frame with a border around it."""
    frame, generated = noise(0, 120, 130), noise(1, SIZE, SIZE)
    result = HARD(frame, generated, generated, disc(), np.array(box))
    wide = np.pad(frame, ((600, 600), (600, 600), (0, 0)))
    beyond = np.array(box) + np.array([600, 600, 0])
    expected = HARD(wide, generated, generated, disc(), beyond)[600:720, 600:730]
    assert np.abs(result.astype(int) - expected).max() <= 2


# Colours


@pytest.mark.parametrize("name", ["mouth_safe", "below_nose"])
@pytest.mark.parametrize("shift", [(12, 12, 12), (-9, 4, 15)])
def test_a_constant_shift_of_colour_is_taken_out(name, shift):
    true, mask = smooth_picture(SIZE, SIZE), mask_of(name)
    generated = np.clip(true.astype(int) + shift, 0, 255).astype(np.uint8)
    matched = match_colour(generated, true, mask, 0.03)
    before, after = (border_difference(picture, true, mask, 0.03) for picture in (generated, matched))
    assert before == pytest.approx(np.abs(shift).mean(), abs=0.3)
    assert after < 0.6
    assert np.abs(matched.astype(int) - true)[mask].max() <= 2
    np.testing.assert_array_equal(matched[~mask], generated[~mask])


def test_a_shift_that_differs_from_side_to_side_is_taken_out_at_the_outline():
    true, mask = np.full((SIZE, SIZE, 3), 128, np.uint8), disc()
    ramp = np.linspace(-12, 12, SIZE)[None, :, None]
    generated = np.broadcast_to(np.rint(128 + ramp), (SIZE, SIZE, 3)).astype(np.uint8)
    matched = match_colour(generated, true, mask, 0.03)
    assert border_difference(generated, true, mask, 0.03) > 4
    assert border_difference(matched, true, mask, 0.03) < 2


def test_what_is_drawn_in_the_middle_keeps_its_contrast():
    """A dark mouth in skin that is twelve levels too light: the skin is matched, the mouth stays as dark as drawn."""
    true, mask = np.full((SIZE, SIZE, 3), 150, np.uint8), disc()
    generated = np.full((SIZE, SIZE, 3), 162, np.uint8)
    generated[44:54, 38:58] = 30
    matched = match_colour(generated, true, mask, 0.03).astype(int)
    np.testing.assert_allclose(matched[44:54, 38:58], 18, atol=1)
    ring = mask.copy()
    ring[40:58, 34:62] = False
    np.testing.assert_allclose(matched[ring], 150, atol=1)


def test_another_content_at_the_outline_moves_colours_by_no_more_than_a_shade():
    true, mask = np.full((SIZE, SIZE, 3), 200, np.uint8), disc()
    generated = np.full((SIZE, SIZE, 3), 40, np.uint8)
    assert match_colour(generated, true, mask, 0.03).max() <= 40 + 48


def test_fine_detail_at_the_outline_does_not_count_as_colour():
    rng = np.random.default_rng(0)
    true = np.full((SIZE, SIZE, 3), 128, np.uint8)
    grain = gaussian_filter(rng.normal(size=(SIZE, SIZE, 1)), (0.5, 0.5, 0)) * 12
    generated = np.clip(128 + grain, 0, 255).repeat(3, axis=2).astype(np.uint8)
    moved = match_colour(generated, true, disc(), 0.03).astype(int) - generated
    assert np.abs(moved).max() <= np.abs(grain).max() / 3


def test_colours_are_matched_only_if_asked():
    frame, box = smooth_picture(160, 170), np.array([30.0, 40.0, SIZE])
    true = cut_square(frame, box, SIZE)
    light = np.clip(true.astype(int) + 12, 0, 255).astype(np.uint8)
    with_colour, without = (Paste(0.03, colour)(frame, light, true, disc(), box) for colour in (True, False))
    assert np.abs(with_colour.astype(int) - frame).max() <= 2
    assert (without.astype(int) - frame).max() >= 11
