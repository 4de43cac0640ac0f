"""Faces in known boxes against dlib called by hand, on drawn faces, a photograph and a real clip."""

from itertools import islice

import dlib
import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.faces import detect
from difftalk_pl.faces.detect import DESCRIPTOR_MODEL, MODEL, MeasuredFaces, model_path
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.video import read_frames

faces = MeasuredFaces()


def resized(frames, side):
    return np.stack(
        [np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS)) for frame in frames]
    )


def drawn(number=5, size=256):
    """Five frames with their exact landmarks."""
    clip = perform(seed=3, number=number, seconds=0.2)
    return np.stack(list(clip.frames(size))), clip.landmarks()


def photograph():
    """A real face, and landmarks that dlib finds in it at its own size."""
    frame = np.ascontiguousarray(skimage.data.astronaut()[10:266, 96:352])
    return frame[None], (track_faces([frame]).landmarks + 0.5) / 256


@pytest.fixture(scope="session")
def speaker(real_clips):
    frames = np.stack([frame.copy() for frame in islice(read_frames(real_clips / "hdtf_aoc.mp4"), 12)])
    return frames, (track_faces(frames).landmarks + 0.5) / frames.shape[1]


@pytest.fixture(params=["drawn", "photograph", "speaker"])
def known(request):
    """Frames and their landmarks, fractions."""
    if request.param == "speaker":
        return request.getfixturevalue("speaker")
    return drawn() if request.param == "drawn" else photograph()


@pytest.fixture
def by_hand(known):
    """dlib's own objects: for every frame what the predictor finds in the detector's nearest box."""
    frames, points = known
    detect, predict = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model_path(MODEL)))
    found = []
    for frame, middle in zip(frames, points.mean(axis=1) * frames.shape[1]):
        boxes = detect(frame, 0)
        centres = np.array([(box.center().x, box.center().y) for box in boxes])
        found.append(predict(frame, boxes[int(np.linalg.norm(centres - middle, axis=1).argmin())]))
    return found


def pixels(shape):
    return np.array([(part.x, part.y) for part in shape.parts()])


def test_landmarks_lie_where_dlib_finds_them_by_itself(known, by_hand, record_difference):
    """Not to the pixel: the detector's boxes are coarser than those of the known landmarks."""
    frames, points = known
    ours = faces.landmarks(frames, points)
    assert ours.shape == points.shape and ours.dtype == np.float32
    side = frames.shape[1]
    theirs = (np.stack([pixels(shape) for shape in by_hand]) + 0.5) / side
    width = np.linalg.norm(theirs[:, 16] - theirs[:, 0], axis=-1).mean()
    difference = np.linalg.norm(ours - theirs, axis=-1).mean() / width
    record_difference("landmarks in known boxes against dlib's detector, face widths", difference, 0.03)


def test_landmarks_are_dlibs_in_the_box_that_they_are_given(known, monkeypatch):
    """To the pixel, with dlib's predictor called by hand."""
    frames, points = known
    box = np.array([0.21, 0.22, 0.78, 0.8]) * frames.shape[1]
    monkeypatch.setattr(detect, "box_of", lambda _: box)
    predict = dlib.shape_predictor(str(model_path(MODEL)))
    theirs = [pixels(predict(frame, dlib.rectangle(*map(round, box.tolist())))) for frame in frames]
    ours = faces.landmarks(frames, points)
    np.testing.assert_allclose(ours * frames.shape[1] - 0.5, np.stack(theirs), atol=1e-3)


def test_descriptors_are_dlibs_own(known, by_hand, record_difference):
    frames, _ = known
    network = dlib.face_recognition_model_v1(str(model_path(DESCRIPTOR_MODEL)))
    theirs = np.array([network.compute_face_descriptor(frame, shape) for frame, shape in zip(frames[:3], by_hand)])
    points = np.stack([(pixels(shape) + 0.5) / frames.shape[1] for shape in by_hand[:3]]).astype(np.float32)
    ours = faces.descriptors(frames[:3], points)
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    record_difference("face descriptors against dlib by hand", np.abs(ours - theirs).max(), 1e-6)
    assert np.array_equal(ours, faces.descriptors(frames[:3], points)), "nothing is drawn at random"


def test_both_videos_are_measured_in_the_same_boxes(speaker):
    """A generated frame that is the true one has its landmarks exactly, whatever a detector would say."""
    frames, points = speaker
    shifted = np.roll(frames, 6, axis=2)
    there, here = faces.landmarks(frames, points), faces.landmarks(shifted, points)
    moved = (here - there).mean(axis=(0, 1)) * frames.shape[1]
    assert moved == pytest.approx([6, 0], abs=1), "and one that is moved is found to have moved"


@pytest.mark.parametrize("side", [64, 128, 200])
def test_small_frames_are_enlarged(speaker, side):
    frames, points = speaker
    small = resized(frames, side)
    large, tiny = faces.landmarks(frames, points), faces.landmarks(small, points)
    assert 256 * np.linalg.norm(large - tiny, axis=-1).mean() < 2.5, "no half pixel is lost on the way"
    assert abs(256 * (large - tiny).mean()) < 0.5
    assert all(faces.finds_face(frame, where) for frame, where in zip(small, points))
    one, other = faces.descriptors(frames[:1], large[:1])[0], faces.descriptors(small[:1], tiny[:1])[0]
    assert np.linalg.norm(one - other) < 0.6, "the same person, by dlib's own threshold"


def test_a_face_is_found_where_it_is_and_nowhere_else(known):
    frames, points = known
    assert faces.finds_face(frames[0], points[0])
    assert not faces.finds_face(frames[0], points[0] * 0.4), "there is one, but elsewhere"
    assert not faces.finds_face(np.full_like(frames[0], 128), points[0])
    noise = np.random.default_rng(0).integers(0, 256, frames[0].shape, dtype=np.uint8)
    assert not faces.finds_face(noise, points[0])


def test_no_frames_have_no_numbers():
    none, points = np.empty((0, 64, 64, 3), np.uint8), np.empty((0, 68, 2), np.float32)
    assert faces.landmarks(none, points).shape == (0, 68, 2)
    assert faces.descriptors(none, points).shape == (0, 128)


def test_frames_without_their_landmarks_are_refused():
    frames, points = drawn(size=64)
    with pytest.raises(ValueError, match="zip"):
        faces.landmarks(frames, points[:-1])
