"""A clip that another sound drives, read through the same Dataset as training."""

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import GENERATION, WindowDataset
from difftalk_pl.data.driven import Driving, back_and_forth
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


def driven(clip: Clip, speech: np.ndarray, shown: np.ndarray, fps: float = 25, gap: int = 60) -> WindowDataset:
    driving, rule = Driving(speech, shown, fps), ReferenceRule(gap, lenient=True)
    return WindowDataset([clip], GENERATION, reference=rule, fixed=True, driving=driving)


def test_the_sound_gives_the_length_the_video_the_pictures(clip):
    """A place of -1 is a frame of the source without a face."""
    speech = np.random.default_rng(0).standard_normal((600, 26)).astype(np.float32)
    shown = back_and_forth(np.arange(300), 130)
    shown[7] = -1
    windows, reader = driven(clip, speech, shown), clip.reader()
    assert len(windows) == 300
    for frame in (0, 150, 299):
        place = min(frame % 258, 258 - frame % 258)  # 130 frames there and back
        window = windows[frame]
        assert (window["clip"], window["frame"]) == (clip.name, frame)
        np.testing.assert_array_equal(window["all_landmarks"], clip.landmarks[place])
        np.testing.assert_array_equal(window["audio"], smoothing_windows(speech, np.array(frame)))
        assert abs(window["reference_frame"] - place) >= 60, "counted in the video's frames"
        for key, number in (("image", place), ("reference", window["reference_frame"])):
            pixels = (window[key].numpy().transpose(1, 2, 0) + 1) * 127.5
            np.testing.assert_allclose(pixels, reader[number], atol=1e-3)
    with pytest.raises((IndexError, ValueError, UserError)):
        windows[7]


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
    windows = driven(clip, speech, back_and_forth(np.arange(round(2 * fps)), 130), fps)
    for frame in (9, 12, 20, 31):
        expected = between(speech, frame / fps * 25)
        np.testing.assert_allclose(windows[frame]["audio"], expected, atol=2e-5)
    assert (windows[12]["audio"] != windows[13]["audio"]).any()
