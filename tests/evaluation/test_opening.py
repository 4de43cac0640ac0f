"""How the seen opening follows the known one, over a stream of drawn frames."""

import numpy as np
import pytest
import torch

from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.evaluation.opening import OpeningCorrelation, dark_opening, true_opening


@pytest.fixture(scope="module")
def clip():
    drawn = perform(seed=3, number=5, seconds=2)
    frames = torch.from_numpy(np.stack(list(drawn.frames(64)))).movedim(-1, 1) / 127.5 - 1
    return frames, torch.from_numpy(drawn.landmarks())


def streamed(frames, landmarks, size):
    metric = OpeningCorrelation()
    for chunk in zip(frames.split(size), landmarks.split(size)):
        metric.update(*chunk)
    return float(metric.compute())


@pytest.mark.parametrize("size", [1, 7, 50])
def test_over_a_stream_it_is_numpys_over_all_frames(clip, size):
    frames, landmarks = clip
    expected = np.corrcoef(dark_opening(frames, landmarks), true_opening(landmarks))[0, 1]
    assert 0.9 < expected == pytest.approx(streamed(frames, landmarks, size), abs=1e-6)


def test_a_mouth_that_answers_to_other_words_does_not_follow(clip):
    frames, landmarks = clip
    assert streamed(frames.roll(13, 0), landmarks, 7) < 0.6


def test_a_still_mouth_and_no_frame_have_no_correlation(clip):
    frames, landmarks = clip
    assert np.isnan(streamed(frames[:1].expand(9, -1, -1, -1), landmarks[:1].expand(9, -1, -1), 3))
    assert OpeningCorrelation().compute().isnan()
