"""Faces in known boxes against dlib called by hand, on a photograph and a real clip."""

from itertools import islice

import dlib
import numpy as np
import pytest

from difftalk_pl.faces.detect import DESCRIPTOR_MODEL, MeasuredFaces, model_path
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.video import read_frames
from tests.faces.test_track import astronaut, dlib_models, resized

faces = MeasuredFaces()


@pytest.fixture(scope="session")
def speaker(real_clips):
    frames = np.stack(list(islice(read_frames(real_clips / "hdtf_aoc.mp4"), 4)))
    return frames, (track_faces(frames).landmarks + 0.5) / frames.shape[1]


@pytest.fixture(params=["photograph", "speaker"])
def known(request):
    """Frames and their landmarks, fractions."""
    if request.param == "speaker":
        return request.getfixturevalue("speaker")
    return astronaut()[None], (track_faces([astronaut()]).landmarks + 0.5) / 256


def test_landmarks_and_descriptors_are_dlibs_own(known, record_difference):
    """Not to the pixel: the boxes of dlib's detector are coarser than those of the known landmarks."""
    frames, points = known
    detect, predict = dlib_models()
    network, side = dlib.face_recognition_model_v1(str(model_path(DESCRIPTOR_MODEL))), frames.shape[1]
    shapes = [predict(frame, max(detect(frame, 0), key=lambda box: box.area())) for frame in frames]
    theirs = (np.array([[(part.x, part.y) for part in shape.parts()] for shape in shapes]) + 0.5) / side
    ours = faces.landmarks(frames, points)
    assert ours.shape == points.shape and ours.dtype == np.float32
    width = np.linalg.norm(theirs[:, 16] - theirs[:, 0], axis=-1).mean()
    away = np.linalg.norm(ours - theirs, axis=-1).mean() / width
    record_difference("landmarks in known boxes against dlib's detector, face widths", away, 0.03)
    expected = np.array([network.compute_face_descriptor(*pair) for pair in zip(frames, shapes)])
    described = faces.descriptors(frames, theirs.astype(np.float32))
    assert described.shape == (len(frames), 128) and described.dtype == np.float32
    record_difference("face descriptors against dlib by hand", np.abs(described - expected).max(), 1e-6)


@pytest.mark.parametrize("side", [64, 200])
def test_small_frames_are_enlarged(speaker, side):
    frames, points = speaker
    small = np.stack([resized(frame, side) for frame in frames])
    large, tiny = faces.landmarks(frames, points), faces.landmarks(small, points)
    assert 256 * np.linalg.norm(large - tiny, axis=-1).mean() < 2.5, "no half pixel is lost on the way"
    assert all(faces.finds_face(frame, where) for frame, where in zip(small, points))
    one, other = faces.descriptors(frames[:1], large[:1])[0], faces.descriptors(small[:1], tiny[:1])[0]
    assert np.linalg.norm(one - other) < 0.6, "the same person, by dlib's own threshold"


def test_a_face_is_found_where_it_is_and_nowhere_else(known):
    frames, points = known
    assert faces.finds_face(frames[0], points[0])
    assert not faces.finds_face(frames[0], points[0] * 0.4), "there is one, but elsewhere"
    assert not faces.finds_face(np.full_like(frames[0], 128), points[0])
