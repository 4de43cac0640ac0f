"""Landmarks against dlib run afresh on single frames; people side by side and one after the other."""

from functools import lru_cache
from itertools import islice

import dlib
import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import face_size
from difftalk_pl.faces.detect import MODEL, model_path
from difftalk_pl.faces.track import follow_face, track_faces
from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.video import read_frames

SIDE = 256
WALL = np.full((SIDE, SIDE, 3), 96, np.uint8)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def astronaut(shift: int = 0) -> np.ndarray:
    """A real face, about 90 of 256 pixels wide; `shift` moves it to the left."""
    return np.ascontiguousarray(skimage.data.astronaut()[10:266, 96 + shift : 352 + shift])


def woman(frames: int) -> list[np.ndarray]:
    return [astronaut(shift=k % 8) for k in range(frames)]


@lru_cache(maxsize=1)
def puppet() -> list[np.ndarray]:
    """A drawn person, 30 frames."""
    return list(perform(0, 1, 1.2).frames(SIDE))


def beside(*shots):
    return [np.concatenate(pictures, axis=1) for pictures in zip(*shots, strict=True)]


def small(picture: np.ndarray, side: int = 150) -> np.ndarray:
    """The picture smaller, on a wall of the same size."""
    return np.pad(resized(picture, side), ((0, SIDE - side), (0, SIDE - side), (0, 0)), constant_values=96)


def found(track) -> list[int]:
    """The frames with the face."""
    return np.flatnonzero(~np.isnan(track.landmarks[:, 0, 0])).tolist()


@lru_cache(maxsize=1)
def dlib_models():
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(model_path(MODEL)))


def alone(frame: np.ndarray) -> np.ndarray:
    """(68, 2) of the largest face in one frame, straight from dlib."""
    detect, predict = dlib_models()
    shape = predict(frame, max(detect(frame, 1), key=lambda face: face.area()))
    return np.array([(point.x, point.y) for point in shape.parts()])


def test_chained_landmarks_follow_the_face():
    """A face sliding over the picture: the landmarks of every frame lie where dlib finds them in that frame alone."""
    frames = [astronaut(shift=2 * k) for k in range(26)]
    track = track_faces(frames)
    assert track.landmarks.shape == (26, 68, 2) and track.landmarks.dtype == np.float32
    assert (track.missed, track.longest_gap, track.faces_seen) == (0, 0, 1)
    for k in (0, 9, 15, 25):
        away = np.linalg.norm(track.landmarks[k] - alone(frames[k]), axis=1).mean()
        assert away < 0.03 * face_size(track.landmarks)
    assert track.detections <= 10  # every tenth frame and the last one, the first at several sizes


@pytest.mark.parametrize("gone", [range(13, 26), range(4), range(27, 30)])
def test_frames_without_the_face_are_missing_and_no_others(gone):
    """The face goes between two detections and comes back between two: no frame is invented and none is given up."""
    frames = [WALL if k in gone else astronaut(shift=k) for k in range(30)]
    track = track_faces(frames)
    assert found(track) == [k for k in range(30) if k not in gone]
    assert track.missed == track.longest_gap == len(gone)
    for k in {12, 20, 26} - set(gone):
        assert np.linalg.norm(track.landmarks[k] - alone(frames[k]), axis=1).mean() < 5  # of 90


def test_a_face_that_jumps_within_its_box_is_found_where_it_is():
    """Landmarks chained over a jump of a third of the face are wrong: the detection, near enough, replaces them."""
    track = track_faces([*[astronaut()] * 11, *[astronaut(30)] * 10])
    assert track.missed == 0
    for k in (10, 11, 20):
        assert np.linalg.norm(track.landmarks[k] - alone(astronaut(30 * (k > 10))), axis=1).mean() < 3


def test_another_face_elsewhere_does_not_confirm_the_one_that_left():
    frames = [*beside(woman(15), [WALL] * 15), *beside([WALL] * 9, [small(picture) for picture in puppet()[:9]])]
    track = track_faces(frames)
    assert (track.faces_seen, found(track)) == (2, list(range(15)))


def test_a_small_face_is_found_at_full_size():
    """90 pixels in a frame of 1280: at half size dlib sees nothing."""
    frame = np.full((720, 1280, 3), 96, np.uint8)
    frame[300:556, 700:956] = astronaut()
    track = track_faces([frame] * 6)
    assert track.missed == 0
    assert np.linalg.norm(track.landmarks[3] - alone(astronaut()) - [700, 300], axis=1).mean() < 4


def test_real_speech_by_colour_and_by_brightness(real_clips):
    """The decoder's Y plane gives the landmarks of RGB, as closely as noise of 2 levels does."""
    path = real_clips / "hdtf_aoc.mp4"
    frames = list(islice(read_frames(path), 45))
    colour, luma = track_faces(frames), track_faces(islice(read_frames(path, convert=ToLuma), 45))
    size = face_size(colour.landmarks)
    assert (colour.missed, colour.faces_seen, luma.missed) == (0, 1, 0)
    assert np.linalg.norm(luma.landmarks - colour.landmarks, axis=-1).mean() < 0.005 * size
    away = [np.linalg.norm(colour.landmarks[k] - alone(frames[k]), axis=1).mean() for k in (5, 20, 35)]
    assert np.mean(away) < 0.015 * size


@pytest.mark.parametrize("choice, column", [("left", 0), ("right", 2), ("2", 1), ("largest", 1)])
def test_people_side_by_side_are_counted_from_the_left(choice, column):
    third = list(perform(0, 2, 0.48).frames(SIDE))
    shot = beside([small(picture) for picture in puppet()[:12]], woman(12), [small(picture) for picture in third])
    track = follow_face(shot, choice)
    assert (track.faces_seen, track.missed) == (3, 0)
    x = track.landmarks.mean(axis=1)[:, 0]
    assert (x > column * SIDE).all() and (x < (column + 1) * SIDE).all()


@pytest.mark.parametrize("cut", [10, 17])
def test_after_a_cut_another_person_in_the_same_place_is_another_person(cut):
    frames = [*woman(cut), *puppet()[: 30 - cut]]
    left, right = (follow_face(frames, choice) for choice in ("left", "right"))
    assert left.faces_seen == right.faces_seen == 2
    assert sorted([found(left), found(right)]) == [list(range(cut)), list(range(cut, 30))]


def test_people_of_real_videos(real_clips):
    """Two people in one picture, another picture of the first one alone, and the second one alone."""
    may, french = (
        [resized(frame, SIDE) for frame in islice(read_frames(real_clips / f"{name}.mp4"), 45)]
        for name in ("r3d_may", "dfrf_french")
    )
    frames = [*beside(may[:15], french[:15]), *beside([WALL] * 12, may[30:42]), *beside(french[30:45], [WALL] * 15)]
    his, hers = (follow_face(frames, choice) for choice in ("1", "2"))
    assert his.faces_seen == hers.faces_seen == 2
    assert sorted([found(his), found(hers)]) == [[*range(15), *range(15, 27)], [*range(15), *range(27, 42)]]


def test_a_flash_and_a_false_alarm_cost_their_own_frame_alone():
    for odd in (np.full_like(WALL, 255), puppet()[0]):
        frames = woman(17)
        frames[8] = odd
        track = follow_face(frames)
        assert (track.faces_seen, track.missed) == (1, 1) and 8 not in found(track)


def test_choices_that_cannot_be():
    told: list[int] = []
    track = follow_face([WALL] * 4, "2", done=told.append)
    assert (track.faces_seen, track.missed, told) == (0, 4, [1, 2, 3, 4]), "no face is no error yet"
    with pytest.raises(UserError, match="face 3: 2 found; give a number up to that"):
        follow_face(beside(puppet()[:5], woman(5)), "3")
    for choice in ("", "0", "-1", "middle"):
        with pytest.raises(UserError, match="expected largest, left, right or a number from the left, 1 first"):
            follow_face(iter(()), choice)
