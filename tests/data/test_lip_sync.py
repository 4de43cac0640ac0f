"""Windows of SyncNet against the library's coefficients of the whole clip."""

import numpy as np
import pytest
from python_speech_features import mfcc

from difftalk_pl.data.lip_sync import sync_mfcc, sync_windows
from difftalk_pl.errors import UserError


def sound(samples):
    return np.random.default_rng(samples).integers(-8000, 8000, samples).astype(np.int16)


@pytest.mark.parametrize(
    ("frames", "samples", "windows"), [(30, 30 * 640, 25), (30, 25 * 640 + 639, 20), (25, 10**6, 20), (6, 3840, 1)]
)
def test_the_shorter_of_picture_and_sound_decides(frames, samples, windows):
    assert sync_windows(frames, samples) == windows


@pytest.mark.parametrize("samples", [3840, 3840 + 639, 40 * 640, 40 * 640 + 1])
def test_a_window_holds_the_steps_of_its_frames(samples):
    count = sync_windows(1000, samples)
    windows = sync_mfcc(sound(samples), count)
    assert windows.shape == (count, 13, 20) and windows.dtype == np.float32
    whole = mfcc(sound(samples), 16000)
    for v in range(count):
        np.testing.assert_allclose(windows[v], whole[4 * v : 4 * v + 20].T, atol=1e-4)


def test_a_click_is_seen_in_the_windows_that_hold_its_frame():
    clip = np.zeros(40 * 640, np.int16)
    clip[20 * 640 + 320] = 30000  # the middle of frame 20
    loudest = sync_mfcc(clip, 35)[:, 0].argmax(axis=1)
    windows = sync_mfcc(clip, 35)[:, 0]
    heard = np.flatnonzero(windows.max(axis=1) > windows.min() + 1)
    assert set(heard) == set(range(16, 21))
    assert all(loudest[v] // 4 == 20 - v for v in heard)


def test_silence_is_finite():
    assert np.isfinite(sync_mfcc(np.zeros(32000, np.int16), 45)).all()


@pytest.mark.parametrize(("frames", "samples"), [(5, 10**6), (100, 6 * 640 - 1), (0, 0)])
def test_too_short_clips_are_named(frames, samples):
    with pytest.raises(UserError, match=rf"^a\.mp4: {frames} frames and .* at least 6 frames \(0\.24 s\) of both$"):
        sync_windows(frames, samples, name="a.mp4")


def test_sound_of_another_scale_is_refused():
    with pytest.raises(ValueError, match="float32: expected int16"):
        sync_mfcc(np.zeros(32000, np.float32), 45)
