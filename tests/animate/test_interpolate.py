"""Pictures between pictures: where things are in them, and what is left alone."""

from itertools import pairwise

import numpy as np
import pytest

from difftalk_pl.animate.interpolate import interpolate
from difftalk_pl.media.video import read_frames

SQUARE = np.kron(np.random.default_rng(0).integers(0, 255, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def smooth(height, width, seed=0):
    """A soft texture, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(seed)
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.15, 0.15, (6, 3)) * (1, 1, 20)]
    return np.clip(128 + 25 * np.stack([sum(waves[i : i + 4]) for i in range(3)], -1), 0, 255).astype(np.uint8)


def with_square(left, size=128):
    """A checked square of 32 pixels before a soft texture."""
    image = smooth(size, size)
    image[48:80, left : left + 32] = SQUARE
    return image


def place(image):
    """The column at which the square is seen best."""
    columns = range(image.shape[1] - 31)
    return int(np.argmin([np.abs(image[48:80, x : x + 32].astype(int) - SQUARE).mean() for x in columns]))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_square_is_between_where_it_was_and_where_it_goes(factor, step=8):
    frames = [with_square(20 + step * i) for i in range(6)]
    results = list(interpolate(iter(frames), factor))
    assert len(results) == factor * len(frames)
    assert all(np.array_equal(image, frame) for image, frame in zip(results[::factor], frames))
    places = np.array([place(image) for image in results[: factor * 5 + 1]])
    assert np.abs(places - (20 + step * np.arange(len(places)) / factor)).max() <= 1
    assert all(np.array_equal(image, frames[-1]) for image in results[factor * 5 :])


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_size_rate_and_number(count, shape=(63, 165)):
    frames = [np.roll(smooth(*shape), i, 1) for i in range(count)]
    results = list(interpolate(frames, 3, 30000 / 1001))
    assert len(results) == 3 * count
    assert all(np.array_equal(image, frame) for image, frame in zip(results[::3], frames))
    assert all(image.shape == (*shape, 3) for image in results)


@pytest.mark.parametrize("factor", [2, 3])
def test_nothing_is_drawn_across_a_cut(factor):
    before = [np.roll(smooth(96, 96, 1) // 2, i, 1) for i in range(5)]
    after = [np.roll(128 + smooth(96, 96, 2) // 2, i, 1) for i in range(5)]
    results = list(interpolate(before + after, factor))
    for part in range(factor + 1):
        expected = before[-1] if part <= factor / 2 else after[0]
        assert np.array_equal(results[4 * factor + part], expected), part


def test_real_faces_come_nearer_than_by_averaging(real_clips):
    shown = [frame for _, frame in zip(range(21), read_frames(real_clips / "r3d_may.mp4"))]
    kept, left_out = shown[::2], shown[1::2]
    drawn = list(interpolate(kept, 2))[1:-1:2]
    averages = [(a.astype(int) + b + 1) // 2 for a, b in pairwise(kept)]

    def psnr(images):
        return 10 * np.log10(255**2 / np.mean([np.square(a.astype(float) - b) for a, b in zip(images, left_out)]))

    assert psnr(drawn) > psnr(averages) + 2 > psnr(kept) + 4
