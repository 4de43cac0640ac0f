"""Jitter against numpy's differences, and silence in sounds that are made for it."""

import numpy as np
import pytest
import torch

from difftalk_pl.evaluation.motion import Jitter, SilentMotion, acceleration, silent_frames

FRAME = 640


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_acceleration_is_numpys_second_difference(rng):
    points, pixels = rng.standard_normal((9, 20, 2)), rng.standard_normal((9, 5, 7))
    expected = np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1)
    total, terms = acceleration(torch.from_numpy(points))
    assert float(total) == pytest.approx(expected.sum(), rel=1e-12) and terms == expected.size
    expected = np.abs(np.diff(pixels, n=2, axis=0))
    total, terms = acceleration(torch.from_numpy(pixels))
    assert float(total) == pytest.approx(expected.sum(), rel=1e-12) and terms == expected.size


def test_pixels_count_where_all_three_frames_show_them(rng):
    pixels = rng.standard_normal((5, 3, 4))
    weight = (rng.random((5, 3, 4)) > 0.2).astype(np.float32)
    total, terms = acceleration(*tensors(pixels, weight))
    counted = [
        abs(pixels[t, y, x] - 2 * pixels[t + 1, y, x] + pixels[t + 2, y, x])
        for t, y, x in np.ndindex(3, 3, 4)
        if weight[t : t + 3, y, x].all()
    ]
    assert 0 < len(counted) < 36
    assert float(total) == pytest.approx(sum(counted), rel=1e-12) and terms == len(counted)


@pytest.mark.parametrize("shape", [(40, 20, 2), (40, 6, 6)])
@pytest.mark.parametrize("size", [2, 3, 7, 40])
def test_jitter_of_overlapping_chunks_is_the_ratio_of_numpys_means(rng, shape, size):
    true, generated = rng.standard_normal((2, *shape)) * np.array([1, 3]).reshape(2, 1, 1, 1)

    def mean(x):
        second = np.diff(x, n=2, axis=0)
        return (np.linalg.norm(second, axis=-1) if shape[-1] == 2 else np.abs(second)).mean()

    metric = Jitter()
    for start in range(0, 40, size):
        part = slice(max(0, start - 2), start + size)
        metric.update(*tensors(generated[part], true[part]))
    assert float(metric.compute()) == pytest.approx(mean(generated) / mean(true), rel=1e-12)


def test_a_steady_head_has_no_jitter_and_the_truth_has_one(rng):
    points = torch.from_numpy(rng.standard_normal((10, 68, 2)))
    metric = Jitter()
    metric.update(points, points)
    assert metric.compute() == 1
    turning = torch.arange(10.0)[:, None, None] * torch.ones(10, 68, 2)
    metric.reset()
    metric.update(turning, points)
    assert metric.compute() == 0, "constant speed"
    metric.reset()
    metric.update(points, turning)
    assert metric.compute().isinf()


def test_two_frames_add_nothing():
    metric = Jitter()
    metric.update(torch.ones(2, 4, 2), torch.zeros(2, 4, 2))
    assert metric.compute().isnan()


def test_videos_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[\(5, 4, 2\), \(5, 1, 2\)\]: expected equal shapes"):
        Jitter().update(torch.ones(5, 4, 2), torch.zeros(5, 1, 2))


def sound(*stretches):
    """int16 noise: (frames, level in dB of full scale) each."""
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal(frames * FRAME) * 32768 * 10 ** (level / 20) for frames, level in stretches]
    return np.concatenate(parts).round().clip(-32768, 32767).astype(np.int16)


def stretches(silent):
    """First frames and ends of the runs of True."""
    edges = np.flatnonzero(np.diff([0, *silent.int().tolist(), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def test_silence_lies_between_words_without_its_first_frames():
    samples = sound((10, -20), (8, -70), (10, -20), (4, -70), (10, -20), (5, -70), (3, -20))
    silent = silent_frames(samples, 50)
    assert silent.dtype == torch.bool and stretches(silent) == [(13, 18), (45, 47)]


@pytest.mark.parametrize(("level", "expected"), [(-50, []), (-60, [(23, 30)])])
def test_silence_is_measured_from_the_loud_level_of_the_clip(level, expected):
    assert stretches(silent_frames(sound((20, -20), (10, level), (20, -20)), 50)) == expected
    quieter = sound((20, -10), (10, level + 10), (20, -10))
    assert stretches(silent_frames(quieter, 50)) == expected, "a clip that is louder as a whole"


def test_a_whispered_clip_counts_as_silent_only_under_the_floor():
    assert stretches(silent_frames(sound((20, -40), (10, -58), (20, -40)), 50)) == []
    assert stretches(silent_frames(sound((20, -40), (10, -65), (20, -40)), 50)) == [(23, 30)]


def test_a_single_bang_does_not_make_speech_silent():
    assert stretches(silent_frames(sound((50, -42), (1, -3), (49, -42)), 100)) == []


@pytest.mark.parametrize("frames", [0, 2, 40])
def test_without_a_voice_all_is_silent(frames):
    assert silent_frames(np.zeros(frames * FRAME, np.int16), frames).tolist() == [True] * frames
    assert silent_frames(torch.from_numpy(sound((frames, -70))), frames).all()


def test_sound_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"\(639,\): expected \(640,\) for 1 frames"):
        silent_frames(np.zeros(639, np.int16), 1)


def test_motion_counts_between_silent_frames_and_relative_to_the_head(rng):
    landmarks = rng.random((12, 68, 2))
    silent = np.array([0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1], bool)
    mouth = landmarks[:, 48:] - landmarks[:, 27:48].mean(axis=1, keepdims=True)
    steps = 256 * np.linalg.norm(np.diff(mouth, axis=0), axis=-1).mean(axis=1)
    metric = SilentMotion()
    metric.update(*tensors(landmarks, silent))
    assert float(metric.compute()) == pytest.approx(steps[[1, 2, 8]].mean(), rel=1e-12)
    moved = landmarks + np.arange(12)[:, None, None] * [0.01, 0.02]
    other = SilentMotion()
    for start in range(0, 12, 5):
        part = slice(max(0, start - 1), start + 5)
        other.update(*tensors(moved[part], silent[part]))
    assert float(other.compute()) == pytest.approx(float(metric.compute()), rel=1e-12)


def test_one_pixel_a_frame_is_one():
    landmarks = torch.full((6, 68, 2), 0.5, dtype=torch.float64)
    landmarks[:, 48:, 1] += torch.arange(6)[:, None] / 256
    metric = SilentMotion()
    metric.update(landmarks, torch.ones(6, dtype=torch.bool))
    assert float(metric.compute()) == pytest.approx(1, rel=1e-12)
    metric.reset()
    metric.update(landmarks, torch.zeros(6, dtype=torch.bool))
    assert metric.compute().isnan()
