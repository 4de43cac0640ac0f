"""A clip that another sound drives, read through the same Dataset as training."""

import pickle

import numpy as np
import pytest

from difftalk_pl.data.audio import smoothing_windows
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.driven import DrivenClip, back_and_forth
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.data.windows import GENERATION, Windows


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


@pytest.mark.parametrize("frames", [20, 130, 300])
def test_the_sound_gives_the_length_the_video_the_pictures(clip, frames):
    speech = np.random.default_rng(0).standard_normal((2 * frames, 26)).astype(np.float32)
    windows = Windows([DrivenClip.drive(clip, speech)], GENERATION, reference=ReferenceRule(lenient=True), fixed=True)
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


def test_a_driven_clip_can_be_sent_to_a_worker(clip):
    driven = DrivenClip.drive(clip, np.zeros((40, 26), np.float32))
    windows = Windows([driven], GENERATION, reference=ReferenceRule(lenient=True))
    before = windows[7]["image"]
    assert (pickle.loads(pickle.dumps(windows))[7]["image"] == before).all()
