"""A clip that another sound drives, read through the same Dataset as training."""

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import GENERATION, WindowDataset
from difftalk_pl.data.driven import DrivenClip, back_and_forth
from difftalk_pl.data.features.windows import smoothing_windows
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.errors import UserError


@pytest.mark.parametrize(
    "frames, expected",
    [(1, [0] * 8), (2, [0, 1, 0, 1, 0, 1, 0, 1]), (3, [0, 1, 2, 1, 0, 1, 2, 1]), (5, [0, 1, 2, 3, 4, 3, 2, 1])],
)
def test_back_and_forth(frames, expected):
    assert back_and_forth(np.arange(8), frames).tolist() == expected
    assert [int(back_and_forth(k, frames)) for k in range(8)] == expected


@pytest.fixture
def clip(talkers) -> Clip:
    return open_clips(talkers)[0]


@pytest.mark.parametrize("frames", [20, 300])
def test_the_sound_gives_the_length_the_video_the_pictures(clip, frames):
    speech = np.random.default_rng(0).standard_normal((2 * frames, 26)).astype(np.float32)
    windows = WindowDataset(
        [DrivenClip.drive(clip, speech)], GENERATION, reference=ReferenceRule(lenient=True), fixed=True
    )
    assert len(windows) == frames
    reader = clip.reader()
    for frame in {0, frames // 2, frames - 1}:
        shown = min(frame % 258, 258 - frame % 258)  # 130 frames there and back
        window = windows[frame]
        pixels = (window["image"].numpy().transpose(1, 2, 0) + 1) * 127.5
        np.testing.assert_allclose(pixels, reader[shown], atol=1e-3)
        np.testing.assert_array_equal(window["all_landmarks"], clip.landmarks[shown])
        np.testing.assert_array_equal(window["audio"], smoothing_windows(speech, np.array(frame)))
        assert abs(window["reference_frame"] - shown) >= 60, "counted in the video's frames"
        pixels = (window["reference"].numpy().transpose(1, 2, 0) + 1) * 127.5
        np.testing.assert_allclose(pixels, reader[window["reference_frame"]], atol=1e-3)


def between(speech: np.ndarray, moment: float) -> np.ndarray:
    """(8, 16, C): each step of the windows around a moment, straight from the two steps that it lies between."""
    times_known = np.arange(-1, len(speech))
    known = np.pad(speech[:-1], ((1, 1), (0, 0)))  # the last step counts as beyond
    slots = []
    for slot in range(8):
        seen = moment + slot - 4
        times = 2 * seen + np.arange(16) - 8
        row = [np.interp(times, times_known, column) for column in known.T]
        slots.append(np.stack(row, axis=1) * (0 <= seen < len(speech) // 2))
    return np.stack(slots)


@pytest.mark.parametrize("fps", [50, 29.97])
def test_at_another_rate_every_frame_hears_its_own_moment(clip, fps):
    """Frame k shows what sounds at k / fps seconds; features have 50 steps a second."""
    speech = np.random.default_rng(1).standard_normal((100, 26)).astype(np.float32)
    driven = DrivenClip.drive(clip, speech, fps=fps)
    assert driven.frames == round(2 * fps), "as long as the sound"
    windows = WindowDataset([driven], GENERATION, reference=ReferenceRule(lenient=True), fixed=True)
    for frame in (9, 12, 20, 31):
        expected = between(speech, frame / fps * 25)
        np.testing.assert_allclose(windows[frame]["audio"], expected, atol=2e-5)
    assert (windows[12]["audio"] != windows[13]["audio"]).any()


def test_frames_that_show_no_face_are_left_out(clip):
    """Places count the frames that were cut; frames of the source without a face have none."""
    shown = np.array([0, 1, -1, -1, 2, 3, 2, -1, 1])
    speech = np.random.default_rng(2).standard_normal((18, 26)).astype(np.float32)
    driven = DrivenClip.drive(clip, speech, shown, name="dubbed")
    windows = WindowDataset([driven], GENERATION, reference=ReferenceRule(0, lenient=True, source="random"), fixed=True)
    reader = clip.reader()
    assert len(windows) == 9
    for frame in np.flatnonzero(shown >= 0).tolist():
        window = windows[frame]
        assert (window["clip"], window["frame"]) == ("dubbed", frame)
        pixels = (window["image"].numpy().transpose(1, 2, 0) + 1) * 127.5
        np.testing.assert_allclose(pixels, reader[int(shown[frame])], atol=1e-3)
        np.testing.assert_array_equal(window["audio"], smoothing_windows(speech, np.array(frame)))
        assert 0 <= window["reference_frame"] < clip.frames
    with pytest.raises((IndexError, ValueError, UserError)):
        windows[2]
