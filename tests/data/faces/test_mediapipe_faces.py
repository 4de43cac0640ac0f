"""MediaPipe's mesh as iBUG's 68 points; where MediaPipe is installed, against dlib's on a photograph."""

from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data

from difftalk_pl.data.faces.detectors import open_detector
from difftalk_pl.data.faces.mediapipe_faces import IBUG, _square, ibug
from difftalk_pl.errors import UserError


def test_every_landmark_has_one_point_of_the_mesh():
    assert len(set(IBUG)) == 68 and max(IBUG) < 468
    mesh = np.stack([np.arange(478), 2 * np.arange(478)], axis=1)
    np.testing.assert_array_equal(ibug(mesh)[:, 0], IBUG)
    np.testing.assert_array_equal(ibug(mesh[:468]), ibug(mesh))


def test_squares_keep_their_place_beyond_the_edges():
    frame = np.arange(1, 6 * 8 + 1, dtype=np.uint8).reshape(6, 8, 1).repeat(3, axis=2)
    around = np.pad(frame, ((20, 20), (20, 20), (0, 0)))
    for left, top, side in [(0, 0, 8), (-3, -2, 5), (5, 4, 6), (-4, 2, 20), (2, 1, 3), (9, 9, 4), (-9, 0, 4)]:
        expected = around[20 + top : 20 + top + side, 20 + left : 20 + left + side]
        np.testing.assert_array_equal(_square(frame, left, top, side), expected)


@pytest.mark.skipif(find_spec("mediapipe") is not None, reason="MediaPipe is installed")
def test_without_mediapipe_the_error_says_how_to_get_it():
    with pytest.raises(
        UserError, match=r"detector mediapipe: cannot be imported .* pip install 'difftalk_pl\[mediapipe"
    ):
        open_detector("mediapipe")


def test_landmarks_lie_near_dlibs():
    """Another network's idea of a face: within 4 % of its size on the mean, closer at eyes, nose and mouth."""
    pytest.importorskip("mediapipe")
    try:
        detector = open_detector("mediapipe")
    except UserError as error:
        pytest.skip(str(error))
    frame = skimage.data.astronaut()
    (box,) = detector.boxes(frame)
    points, own = detector.landmarks(frame, box), open_detector("dlib")
    expected = own.landmarks(frame, own.boxes(frame)[0])
    away = np.linalg.norm(points - expected, axis=1) / np.ptp(expected, axis=0).mean()
    assert away.mean() < 0.04 and away[27:].mean() < 0.03
    assert np.isnan(detector.landmarks(frame, np.array([10.0, 400, 90, 480]))).all()
    assert detector.boxes(np.full_like(frame, 90)) == []
