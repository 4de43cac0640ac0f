"""What dlib sees in frames whose face is known to be somewhere: landmarks, descriptors, and whether there is a face.

Two videos are compared fairly only if the same is looked at in both. A detector's boxes come in coarse steps, differ
from video to video and move the landmarks with them, so the boxes come from landmarks of the true video. What a
detector would have said stays a question of its own.
"""

from functools import lru_cache

import dlib
import numpy as np
from PIL import Image

from difftalk_pl.faces.tracking import (
    SAME_FACE,
    box_of,
    boxes_in,
    intersection_over_union,
    landmarks_in,
    model_path,
)

SMALLEST_SIDE = 256  # pixels; smaller frames are enlarged to it, as dlib is blind on small faces
DESCRIPTOR_MODEL = "dlib_face_recognition_resnet_model_v1.dat"
NUMBERS = 128  # of a descriptor


class MeasuredFaces:
    """dlib on square frames. Points are fractions of the side, counted from the frame's edge.

    The models are read on first use, once in a process. The same frames give the same numbers.
    """

    def landmarks(self, frames: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The 68 points of dlib's predictor, in the boxes of known landmarks.

        Args:
            frames: (n, S, S, 3) uint8 RGB.
            known: (n, 68, 2) of the true video.

        Returns:
            (n, 68, 2) float32, in steps of a pixel.
        """
        found = np.empty((len(frames), 68, 2), np.float32)
        for number, (frame, points) in enumerate(zip(frames, known, strict=True)):
            large = _enlarge(frame)
            found[number] = (landmarks_in(large, box_of(_pixels(points, large))) + 0.5) / large.shape[0]
        return found

    def descriptors(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """What dlib's network for face recognition makes of the face at these points; nothing is drawn at random.

        dlib calls two faces one person whose descriptors are less than 0.6 apart.

        Args:
            frames: (n, S, S, 3) uint8 RGB.
            points: (n, 68, 2) as `landmarks` gives them, of these very frames.

        Returns:
            (n, 128) float32.
        """
        found = np.empty((len(frames), NUMBERS), np.float32)
        for number, (frame, face) in enumerate(zip(frames, points, strict=True)):
            large = _enlarge(frame)
            found[number] = _network().compute_face_descriptor(large, _as_detection(_pixels(face, large)))
        return found

    def finds_face(self, frame: np.ndarray, known: np.ndarray) -> bool:
        """Whether dlib's detector, which knows of no landmarks, finds a face in the box of the known ones, (68, 2)."""
        large = _enlarge(frame)
        box = box_of(_pixels(known, large))
        return any(intersection_over_union(box, found) >= SAME_FACE for found in boxes_in(large))


def describe_face(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(128,) of the face at these landmarks, (68, 2) in dlib's pixels, of a frame of any size, (H, W, 3) uint8."""
    return np.array(_network().compute_face_descriptor(np.ascontiguousarray(frame), _as_detection(points)), np.float32)


@lru_cache(maxsize=1)
def _network():
    return dlib.face_recognition_model_v1(str(model_path(DESCRIPTOR_MODEL)))


def _enlarge(frame: np.ndarray) -> np.ndarray:
    """(S, S, 3) at 256 pixels or more."""
    side = frame.shape[0]
    if side >= SMALLEST_SIDE:
        return np.ascontiguousarray(frame)
    return np.asarray(Image.fromarray(frame).resize((SMALLEST_SIDE, SMALLEST_SIDE), Image.Resampling.BICUBIC))


def _pixels(points: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Fractions to dlib's pixels, which count from the middle of the first one."""
    return points * frame.shape[0] - 0.5


def _as_detection(points: np.ndarray) -> dlib.full_object_detection:
    """dlib's own form of 68 points in pixels; the crop for the descriptor hangs on them, not on the box."""
    corners = dlib.rectangle(*(round(float(side)) for side in box_of(points)))
    return dlib.full_object_detection(corners, [dlib.point(round(float(x)), round(float(y))) for x, y in points])
