"""Windows of the released code's layout, cut here by AD-NeRF's rule, held against what is rebuilt from them."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from difftalk_pl.data.legacy.audio import rebuild
from difftalk_pl.data.legacy.files import read_windows
from tests.data.legacy.legacy_layouts import FRAMES, cut, steps_of


def test_a_cut_out_of_a_longer_video_keeps_its_steps():
    """Windows at the ends of the run show steps of the frames around it; all that lie inside are right."""
    steps = steps_of(200)
    windows = cut(steps).astype(np.float32)[40:170]
    found = rebuild(lambda k: windows[k], 130, first=40)
    assert found.steps is not None
    np.testing.assert_array_equal(found.steps, steps[80:340].astype(np.float32))
    assert "115 of them exact, the others look beyond the clip's ends" in found.finding  # all but 8 and 7 at the ends
    assert "no window shows where the sound begins, so windows that are all a step off would not be noticed" in (
        found.finding
    )


def cut_off(by: int, first: int = 0) -> np.ndarray:
    """Windows of the frames from `first`, each `by` steps later than it should be: (T, 8, 16, 29)."""
    steps = steps_of(FRAMES)
    padded = np.concatenate([np.zeros((30, 29)), steps, np.zeros((30, 29))])
    own = np.stack([padded[30 + 2 * k + by - 8 :][:16] for k in range(FRAMES)])
    held = np.concatenate([np.zeros((4, 16, 29)), own, np.zeros((4, 16, 29))])
    return np.stack([held[k : k + 8] for k in range(first, FRAMES)]).astype(np.float32)


@pytest.mark.parametrize("first", range(4))
def test_windows_a_step_off_are_told_where_a_window_shows_the_start(first):
    right = cut_off(0, first)
    assert "the sound begins where it must" in rebuild(lambda k: right[k], len(right), first).finding
    for by in (-3, -1, 1, 3):
        windows = cut_off(by, first)
        found = rebuild(windows.__getitem__, len(windows), first)
        zeros, wanted = max(8 - 2 * first - by, 0), " or ".join(str(8 - 2 * k) for k in (first, first - 1) if k >= 0)
        assert found.steps is None and found.finding == (
            f"the window of frame {first} begins with {zeros} steps of zeros, expected {wanted}: not cut at its moment"
        )


def test_a_video_that_is_numbered_from_1_begins_there():
    windows = cut_off(0)
    found = rebuild(lambda k: windows[k], FRAMES, first=1)
    assert found.steps is not None and "the sound begins where it must" in found.finding
    np.testing.assert_array_equal(found.steps[:-1], steps_of(FRAMES)[:-1].astype(np.float32))


def test_a_start_that_no_window_shows_is_said():
    """From frame 4 on, and where the first window is all zero."""
    late = cut_off(1, first=4)
    assert "would not be noticed" in rebuild(lambda k: late[k], len(late), first=4).finding
    steps = np.concatenate([np.zeros((8, 29)), steps_of(FRAMES)[8:]])
    mute = cut(steps).astype(np.float32)
    found = rebuild(lambda k: mute[k], FRAMES)
    assert found.steps is not None and "would not be noticed" in found.finding


def test_silence_between_the_zeros_of_its_ends_is_verifiable():
    """Every step alike: still, one way of cutting alone gives the windows of the first frames."""
    windows = cut(np.ones((2 * FRAMES, 29))).astype(np.float32)
    found = rebuild(lambda k: windows[k], FRAMES)
    assert found.steps is not None and found.steps[:-1].all()


def test_another_shape_is_not_read(tmp_path):
    """However large: a file of 371 GB that is a hole."""
    path = tmp_path / "1_0.npy"
    shape = (10**8, 16, 29)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 10**8 * 16 * 29 * 8)
    assert re.search(r"holds \(100000000, 16, 29\), expected", rebuild(lambda k: read_windows(path), 9).finding)


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
        (np.ones_like, r"^not verifiable: windows fit 0 steps a frame as well as 2$"),
        (
            lambda w: np.tile([[1.0], [2.0]], (len(w), 8, 8, 29)),
            r"^not verifiable: windows fit 0 steps a frame as well as 2$",
        ),
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
