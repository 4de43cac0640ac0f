"""The distance of landmarks against dlib called by hand, and on points whose distance is known."""

from itertools import islice

import dlib
import numpy as np
import pytest
import torch

from difftalk_pl.evaluation.landmarks import LandmarkDistance, lmd
from difftalk_pl.faces.detect import MODEL, model_path
from difftalk_pl.media.video import read_frames


@pytest.fixture
def points():
    return torch.rand(6, 68, 2, generator=torch.Generator().manual_seed(0))


def test_only_the_mouth_counts_and_in_place(points):
    moved = points.clone()
    moved[:, :48] += 0.1
    assert lmd(moved, points).tolist() == [0] * 6
    moved[:, 48:] += torch.tensor([3.0, 4.0]) / 256
    assert lmd(moved, points).numpy() == pytest.approx(5, abs=1e-4), "not aligned first: 3 and 4 pixels are 5"
    only = points.clone()
    only[2, 60, 0] += 20 / 256
    assert lmd(only, points).numpy() == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-4)


def test_over_a_stream_every_frame_counts_alike(points):
    others = points.flip(0)
    metric = LandmarkDistance()
    for chunk in zip(points.split(4), others.split(4)):
        metric.update(*chunk)
    expected = np.linalg.norm(points.numpy() - others.numpy(), axis=-1)[:, 48:].mean() * 256
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


def test_on_a_real_clip_it_is_that_of_dlibs_own_points(real_clips, record_difference):
    """Two frames of a speaker, a third of a second apart, detected and measured with nothing of the project."""
    frames = list(islice(read_frames(real_clips / "hdtf_aoc.mp4"), 0, 40, 8))
    detect, predict = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model_path(MODEL)))
    found = [[(part.x, part.y) for part in predict(frame, detect(frame, 0)[0]).parts()] for frame in frames]
    pixels, side = np.array(found, np.float64), len(frames[0])
    by_hand = [
        sum(np.hypot(*(one[k] - other[k])) for k in range(48, 68)) / 20 * 256 / side
        for one, other in zip(pixels[1:], pixels[:-1])
    ]
    fractions = torch.from_numpy(pixels / side)
    metric = LandmarkDistance()
    metric.update(fractions[1:], fractions[:-1])
    assert np.mean(by_hand) > 1
    record_difference("LMD against dlib by hand, pixels", abs(float(metric.compute()) - np.mean(by_hand)), 1e-9)
    assert lmd(fractions, fractions).tolist() == [0] * len(fractions)
