"""Jitter against numpy's differences, and silence in sounds that are made for it."""

import numpy as np
import pytest
import torch

from difftalk_pl.evaluation.motion import acceleration, silent_frames, silent_motion

FRAME = 640


def test_acceleration_is_numpys_second_difference():
    rng = np.random.default_rng(0)
    points, pixels = rng.standard_normal((9, 20, 2)), rng.standard_normal((9, 5, 7))
    lengths = np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)
    assert float(acceleration(torch.from_numpy(points))) == pytest.approx(lengths.sum(), rel=1e-12)
    second = np.abs(np.diff(pixels, n=2, axis=0))
    assert float(acceleration(torch.from_numpy(pixels))) == pytest.approx(second.sum(), rel=1e-12)
    weight = rng.random((9, 5, 7)) > 0.2
    counted = second[weight[2:] & weight[1:-1] & weight[:-2]]
    found = acceleration(torch.from_numpy(pixels), torch.from_numpy(weight))
    assert 0 < len(counted) < second.size and float(found) == pytest.approx(counted.sum(), rel=1e-12)
    assert acceleration(torch.ones(2, 4, 2)) == 0, "two frames have no second difference"


def sound(*stretches):
    """int16 noise: (frames, level in dB of full scale) each."""
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal(frames * FRAME) * 32768 * 10 ** (level / 20) for frames, level in stretches]
    return np.concatenate(parts).round().clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize(
    ("stretches", "silent"),
    [
        (((10, -20), (8, -70), (10, -20), (4, -70), (10, -20), (5, -70), (3, -20)), [*range(13, 18), 45, 46]),
        (((20, -20), (10, -50), (20, -20)), []),
        (((20, -20), (10, -60), (20, -20)), [*range(23, 30)]),
        (((20, -10), (10, -50), (20, -10)), [*range(23, 30)]),  # the whole clip is louder
        (((20, -40), (10, -58), (20, -40)), []),  # whispered: silent only under the floor
        (((20, -40), (10, -65), (20, -40)), [*range(23, 30)]),
        (((24, -42), (1, -3), (25, -42)), []),  # a single bang does not make speech silent
        (((50, -70),), [*range(50)]),  # no voice at all
    ],
)
def test_silence_is_measured_from_the_loud_level_of_the_clip(stretches, silent):
    assert silent_frames(sound(*stretches)).nonzero().flatten().tolist() == silent


def test_motion_counts_between_silent_frames_and_relative_to_the_head():
    landmarks = np.random.default_rng(0).random((12, 68, 2))
    silent = torch.tensor([0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1]).bool()
    mouth = landmarks[:, 48:] - landmarks[:, 27:48].mean(axis=1, keepdims=True)
    steps = 256 * np.linalg.norm(np.diff(mouth, axis=0), axis=-1).mean(axis=1)
    moved = landmarks + np.arange(12)[:, None, None] * [0.01, 0.02]
    for points in (landmarks, moved):
        np.testing.assert_allclose(silent_motion(torch.from_numpy(points), silent), steps[[1, 2, 8]], rtol=1e-12)
