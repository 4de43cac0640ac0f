"""Features and their windows, against numbers of AD-NeRF's code and of python_speech_features."""

from pathlib import Path

import numpy as np
import pytest
from python_speech_features import mfcc

from difftalk_pl.data.features.kinds import MFCC
from difftalk_pl.data.features.windows import audio_windows, smoothing_windows

GOLDEN = Path(__file__).parents[2] / "golden" / "audio_windows.npz"  # three channels of the oracle's 29
STEP = 320  # samples of 20 ms


def test_windows_equal_the_published_ones():
    golden = np.load(GOLDEN)
    windows = audio_windows(golden["steps"], np.arange(len(golden["windows"])))
    np.testing.assert_array_equal(windows, golden["windows"])
    smoothing = smoothing_windows(golden["steps"], golden["smoothing_frames"])
    np.testing.assert_array_equal(smoothing, golden["smoothing_windows"])


@pytest.mark.oracle
def test_windows_equal_the_published_ones_in_full(oracles, record_difference):
    oracle = np.load(oracles / "audio_windows.npz")
    windows = audio_windows(oracle["logits_50hz"], np.arange(len(oracle["windows"])))
    smoothing = smoothing_windows(oracle["logits_50hz"], oracle["smoothing_frames"])
    record_difference("audio windows", np.abs(windows - oracle["windows"]).max(), 0)
    record_difference("audio windows, smoothing", np.abs(smoothing - oracle["smoothing_windows"]).max(), 0)


def test_a_window_holds_the_steps_around_its_frame():
    """W[k][t] = D[2k + t - 8], zeros outside; the last step counts as outside."""
    windows = audio_windows(np.arange(1, 61, dtype=np.float32)[:, None], np.arange(30))
    number = 2 * np.arange(30)[:, None] + np.arange(16) - 8
    np.testing.assert_array_equal(windows[..., 0], np.where((number >= 0) & (number < 59), number + 1, 0))


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_between_two_frames_steps_are_interpolated(share):
    """Two steps a frame: the step of a moment lies between the two that numpy finds around it."""
    steps = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    moments = np.arange(5, 24) + share
    windows = audio_windows(steps, moments)
    assert windows.dtype == np.float32
    times = 2 * moments[:, None] + np.arange(16) - 8
    for channel in range(3):
        expected = np.interp(times, np.arange(60), steps[:, channel])
        np.testing.assert_allclose(windows[..., channel], expected, atol=1e-5)


def test_moments_beyond_the_sound_are_silent():
    steps = np.ones((40, 2), np.float32)
    around = smoothing_windows(steps, np.array(17.5))  # slots at 13.5 … 20.5 of 20 frames
    assert (around[7:] == 0).all() and (around[:7] != 0).any(axis=(1, 2)).all()
    assert (smoothing_windows(steps, np.array(2.5))[:2] == 0).all()
    assert audio_windows(steps, np.array(0.25))[7, 0] == pytest.approx(0.5), "half-way from nothing to the first step"
    assert audio_windows(steps, np.array(100.5)).sum() == 0


@pytest.mark.parametrize("samples, rows", [(0, 0), (639, 0), (640, 2), (3 * 640, 6), (101 * 640 + 639, 202)])
def test_mfcc_have_two_steps_a_frame(samples, rows):
    features = MFCC(np.random.default_rng(0).integers(-3000, 3000, samples).astype(np.int16))
    assert features.shape == (rows, 26) and features.dtype == np.float32 and np.isfinite(features).all()


@pytest.mark.parametrize("step", [1, 40, 97])
def test_a_step_of_mfcc_is_centred_on_its_time(step):
    """A click is heard in the step of its time alone; half-way between two, in both of them."""

    def loudest(sample: int) -> np.ndarray:
        sound = np.zeros(100 * STEP, np.int16)
        sound[sample] = 30000
        return np.argsort(MFCC(sound)[:, 0])[::-1]  # coefficient 0 is the logarithm of the energy

    for away in (-100, 0, 100):
        assert loudest(step * STEP + away)[0] == step
    assert set(loudest(step * STEP + STEP // 2)[:2]) == {step, step + 1}


def test_mfcc_are_those_of_the_library():
    """Every step beside the library's coefficients of the 25 ms around it alone; the scale is known up to the mean."""
    rng = np.random.default_rng(1)
    loudness = 4000 * (1.2 + np.sin(np.arange(200 * STEP) / 3000))
    sound = (loudness * rng.standard_normal(200 * STEP) / 3).astype(np.int16)
    features = MFCC(sound)[2:-2].astype(np.float64)
    alone = np.array([mfcc(sound[s * STEP - 360 : s * STEP + 200], 16000, numcep=26)[1] for s in range(2, 198)])
    for number in range(26):
        slope, offset = np.polyfit(features[:, number], alone[:, number], 1)
        np.testing.assert_allclose(slope * features[:, number] + offset, alone[:, number], atol=0.1)
        assert slope == pytest.approx(max(alone[:, number].std(), 1.0), rel=0.06)
    assert np.abs(MFCC(sound).mean(axis=0)).max() < 1e-4


def test_digital_silence_is_finite_and_flat():
    silence = np.zeros(16000, np.int16)
    assert MFCC(silence).std() < 1.01
    half = MFCC(np.concatenate([silence, np.full(16000, 9000, np.int16) * np.tile([1, -1], 8000).astype(np.int16)]))
    assert np.isfinite(half).all() and np.abs(half).max() < 20
