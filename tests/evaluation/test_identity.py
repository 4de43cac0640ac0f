"""Similarity of descriptors against a plain formula, and that it tells people apart."""

from itertools import islice

import numpy as np
import pytest
import torch

from difftalk_pl.evaluation.identity import IdentitySimilarity, similarity
from difftalk_pl.faces.detect import MeasuredFaces
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.video import read_frames


def test_it_is_the_cosine_of_every_frame():
    ours, theirs = np.random.default_rng(0).standard_normal((2, 9, 128)).astype(np.float32)
    expected = [one @ other / np.sqrt((one @ one) * (other @ other)) for one, other in zip(ours, theirs)]
    ours, theirs = torch.from_numpy(ours), torch.from_numpy(theirs)
    assert similarity(ours, theirs).numpy() == pytest.approx(expected, abs=1e-6)
    assert similarity(ours, 3 * ours).numpy() == pytest.approx(1, abs=1e-12)
    assert similarity(ours, -ours).numpy() == pytest.approx(-1, abs=1e-12)
    metric = IdentitySimilarity()
    metric.update(ours[:4], theirs[:4])
    metric.update(ours[4:], theirs[4:])
    assert float(metric.compute()) == pytest.approx(np.mean(expected), abs=1e-6)


def test_one_person_is_nearer_than_two(real_clips):
    faces, described = MeasuredFaces(), {}
    for name in ("hdtf_aoc", "r3d_may"):
        frames = [frame.copy() for frame in islice(read_frames(real_clips / f"{name}.mp4"), 26)]
        known = (track_faces(frames).landmarks + 0.5) / len(frames[0])
        ends, known = np.stack(frames)[[0, 25]], known[[0, 25]]
        described[name] = torch.from_numpy(faces.descriptors(ends, faces.landmarks(ends, known)))
    aoc, may = described.values()
    assert similarity(aoc[:1], aoc[1:]) > 0.95 and similarity(may[:1], may[1:]) > 0.95
    assert similarity(aoc, may).max() < 0.9
