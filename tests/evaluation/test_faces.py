"""Mouth distance and opening: by hand, against dlib, and on drawn faces."""

from itertools import islice

import dlib
import numpy as np
import pytest
import torch

from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.evaluation.motion import lmd
from difftalk_pl.evaluation.opening import dark_opening, true_opening
from difftalk_pl.faces.detect import MODEL, model_path
from difftalk_pl.media.video import read_frames


def test_only_the_mouth_counts_and_in_place():
    points = torch.rand(6, 68, 2, generator=torch.Generator().manual_seed(0))
    moved = points.clone()
    moved[:, :48] += 0.1
    assert lmd(moved, points).tolist() == [0] * 6
    moved[:, 48:] += torch.tensor([3.0, 4.0]) / 256
    assert lmd(moved, points).numpy() == pytest.approx(5, abs=1e-4), "not aligned first: 3 and 4 pixels are 5"


def test_on_a_real_clip_the_distance_is_that_of_dlibs_own_points(real_clips, record_difference):
    """Frames of a speaker, a third of a second apart, detected and measured with nothing of the project."""
    frames = list(islice(read_frames(real_clips / "hdtf_aoc.mp4"), 0, 9, 8))
    detect, predict = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model_path(MODEL)))
    found = [[(part.x, part.y) for part in predict(frame, detect(frame, 0)[0]).parts()] for frame in frames]
    pixels, side = np.array(found, np.float64), len(frames[0])
    by_hand = [np.hypot(*(one - other)[48:].T).mean() * 256 / side for one, other in zip(pixels[1:], pixels[:-1])]
    fractions = torch.from_numpy(pixels / side)
    assert np.mean(by_hand) > 1
    difference = np.abs(lmd(fractions[1:], fractions[:-1]).numpy() - by_hand).max()
    record_difference("LMD against dlib by hand, pixels", difference, 1e-9)


def test_the_opening_in_the_picture_follows_the_known_one_and_does_not_depend_on_the_mouths_landmarks():
    clip = perform(seed=3, number=5, seconds=3)
    frames = torch.from_numpy(np.stack(list(clip.frames(64)))).movedim(-1, 1) / 127.5 - 1
    landmarks = torch.from_numpy(clip.landmarks())
    seen, known = dark_opening(frames, landmarks), true_opening(landmarks)
    assert np.corrcoef(seen, known)[0, 1] > 0.9 and np.corrcoef(seen.roll(13), known)[0, 1] < 0.6
    moved = landmarks.clone()
    moved[:, 48:] += 0.2
    moved[:, :17] -= 0.1
    assert torch.equal(dark_opening(frames, moved), seen)
