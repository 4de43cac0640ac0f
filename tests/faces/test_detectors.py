"""Detectors by name, and a tracker that works with any of them: here one that takes bright squares for faces."""

import numpy as np
import pytest

from difftalk_pl.errors import UserError
from difftalk_pl.faces.detectors import box_of, open_detector
from difftalk_pl.faces.dlib_faces import DlibFaces
from difftalk_pl.faces.tracking import track_faces

TEMPLATE = np.random.default_rng(0).uniform(0, 1, (68, 2))
TEMPLATE[0], TEMPLATE[16] = (0, 0), (1, 1)
SIDE = 60


class BrightSquares:
    """A face is what is white; its landmarks lie in it as in the template."""

    name = "bright squares"
    colour = False

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def boxes(self, frame: np.ndarray) -> list[np.ndarray]:
        self.asked.append(frame.shape)
        points = self._points(frame, 0, 0)
        return [] if points is None else [box_of(points)]

    def landmarks(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        left, top = (max(0, int(side) - SIDE // 2) for side in box[:2])
        part = frame[top : int(box[3]) + SIDE // 2, left : int(box[2]) + SIDE // 2]
        points = self._points(part, left, top)
        return np.full((68, 2), np.nan, np.float32) if points is None else points

    def _points(self, frame: np.ndarray, left: int, top: int) -> np.ndarray | None:
        y, x = np.nonzero(frame > 200)
        if len(x) == 0:
            return None
        low, high = np.array([x.min(), y.min()]), np.array([x.max(), y.max()])
        return (low + TEMPLATE * (high - low) + [left, top]).astype(np.float32)


class Halfway:
    """Lacks what a detector needs."""

    name = "halfway"


def frame_with(x: int | None) -> np.ndarray:
    """(240, 320) grey with a white square whose left edge is at x."""
    frame = np.full((240, 320), 90, np.uint8)
    if x is not None:
        frame[100 : 100 + SIDE, x : x + SIDE] = 255
    return frame


def test_the_tracker_follows_what_another_detector_finds():
    """Brightness only, exact places, and its NaN means that the frame shows no face."""
    gone = (13, 14, 31)
    frames = [frame_with(None if k in gone else 20 + 4 * k) for k in range(40)]
    detector = BrightSquares()
    track = track_faces(frames, detector=detector)
    assert np.flatnonzero(~track.found).tolist() == list(gone)
    assert track.faces_seen == 1
    assert all(len(shape) == 2 for shape in detector.asked) and len(detector.asked) == track.detections
    for k in {0, 5, 12, 15, 39} - set(gone):
        expected = [20 + 4 * k, 100] + TEMPLATE * (SIDE - 1)
        np.testing.assert_allclose(track.landmarks[k], expected, atol=1)


def test_a_face_that_is_gone_at_the_end_is_not_drawn_on():
    frames = [frame_with(50 + k if k < 25 else None) for k in range(28)]
    assert track_faces(frames, detector=BrightSquares()).found.tolist() == [k < 25 for k in range(28)]


def test_detectors_are_opened_by_name():
    assert isinstance(open_detector("dlib"), DlibFaces)
    detector = open_detector(f"{__name__}:BrightSquares")
    assert detector.name == "bright squares" and not detector.colour


@pytest.mark.parametrize(
    "name, message",
    [
        ("magic", r"detector 'magic': there are dlib, mediapipe, or a class as package\.module:Class"),
        ("nowhere.at_all:Faces", r"nowhere\.at_all:Faces: cannot be opened \(ModuleNotFoundError: .*'nowhere'"),
        (f"{__name__}:Missing", r"Missing: cannot be opened \(AttributeError: "),
        (f"{__name__}:Halfway", r"Halfway: has no colour, boxes, landmarks; see FaceDetector"),
        (f"{__name__}:frame_with", r"frame_with: cannot be opened \(TypeError: .*callable without arguments"),
    ],
)
def test_what_is_no_detector_is_an_error(name, message):
    with pytest.raises(UserError, match=message):
        open_detector(name)
