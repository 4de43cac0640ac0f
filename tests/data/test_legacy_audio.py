"""Windows of the released code's layout, cut here by AD-NeRF's rule, held against what is rebuilt from them."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from difftalk_pl.data.legacy_audio import rebuild
from tests.data.legacy_layouts import FRAMES, cut, steps_of


def test_a_cut_out_of_a_longer_video_keeps_its_steps():
    """Windows at the ends of the run show steps of the frames around it; all that lie inside are right."""
    steps = steps_of(200)
    windows = cut(steps).astype(np.float32)[40:170]
    found = rebuild(lambda k: windows[k], 130, first=40)
    assert found.steps is not None
    np.testing.assert_array_equal(found.steps, steps[80:340].astype(np.float32))
    assert "115 of them exact, the others look beyond the clip's ends" in found.finding  # all but 8 and 7 at the ends


Spoil = Callable[[np.ndarray], np.ndarray]


def _one_wrong(windows: np.ndarray) -> np.ndarray:
    windows[50, :, 3] += 1
    return windows


def _one_slot(windows: np.ndarray) -> np.ndarray:
    windows[60, 6, 9, 4] += 1
    return windows


def _edge(windows: np.ndarray) -> np.ndarray:
    windows[0, 0] = 1
    return windows


@pytest.mark.parametrize(
    "spoil, finding",
    [
        (_one_wrong, r"only 127 of 129 windows .* share 14 of 16 steps; those of frames 49 and 50 do not; slots 0, 1"),
        (_one_slot, r"^slots 6: not the windows of the frames i-4 … i\+3 around \(127 of 128 fit\)$"),
        (_edge, r"^windows beyond the first or last frame: 1 neither zero nor what follows$"),
        (lambda w: np.random.default_rng(1).standard_normal(w.shape), r"^windows .* share 0 of 16 steps, expected 14"),
        (lambda w: np.repeat(w[:1, 4:5], len(w), 0).repeat(8, 1), r"share 16 of 16 steps, .*: they do not move on"),
        (np.zeros_like, r"^all windows are zero$"),
        (lambda w: w[:, 4], r"^the file of frame 7 holds \(16, 29\), expected \(8, 16, 29\)$"),
        (lambda w: np.roll(w, 1, axis=1), r"^only 128 of 129 .* those of frames 0 and 1 do not; slots 0:"),
    ],
)
def test_windows_that_are_not_ad_nerfs_are_not_used(spoil: Spoil, finding):
    windows = spoil(cut(steps_of(FRAMES))).astype(np.float32)
    found = rebuild(lambda k: windows[k], FRAMES, first=0 if "frame 7" not in finding else 7)
    assert found.steps is None
    assert re.search(finding, found.finding), found.finding


@pytest.mark.oracle
def test_published_windows_give_their_steps_back(oracles, record_difference):
    published = np.load(oracles / "audio_windows.npz", allow_pickle=False)
    windows = published["windows"].astype(np.float32)
    held = np.concatenate([np.zeros((4, *windows.shape[1:]), np.float32), windows, np.zeros_like(windows[:4])])
    for frame, expected in zip(published["smoothing_frames"], published["smoothing_windows"], strict=True):
        np.testing.assert_array_equal(held[frame : frame + 8], expected)
    found = rebuild(lambda k: held[k : k + 8], len(windows))
    assert found.steps is not None and "75 of them exact" in found.finding
    difference = np.abs(found.steps - published["logits_50hz"])[:-1].max()
    record_difference("steps rebuilt from published windows", float(difference), 0)
