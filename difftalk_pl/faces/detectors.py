"""What finds faces and their landmarks, by name: dlib, MediaPipe, or a class of anyone's."""

import importlib
from typing import Protocol

import numpy as np

from difftalk_pl.errors import UserError

BOX_OFFSET, BOX_SIDE = (0.0, -0.09), 1.05  # dlib's boxes about its landmarks, in face sizes; mean of real clips
NAMES = ("dlib", "mediapipe")

Box = np.ndarray  # (4,) left, top, right, bottom, pixels


class FaceDetector(Protocol):
    """Finds faces in a frame, and the landmarks of one whose place is known.

    Both are asked for single frames, in any order and at any size. A frame is (H, W, 3) uint8 RGB, or, where `colour`
    is False, (H, W) uint8: brightness is then enough, and comes from the decoder without any conversion.
    """

    name: str
    colour: bool

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """Every face, as `box_of` would draw the box about its landmarks; an empty list where there is none."""
        ...

    def landmarks(self, frame: np.ndarray, box: Box) -> np.ndarray:
        """(68, 2) float32, iBUG's 68 points of the face in this box, pixels x, y; NaN where none is seen."""
        ...


def open_detector(name: str) -> FaceDetector:
    """A detector for this process.

    Args:
        name: dlib, mediapipe, or `package.module:Class`, a class that can be imported and called without arguments.

    Raises:
        UserError: no such name, or what it names cannot be imported or is no detector.
    """
    if name == "dlib":
        from difftalk_pl.faces.dlib_faces import DlibFaces

        return DlibFaces()
    if name == "mediapipe":
        from difftalk_pl.data.faces.mediapipe_faces import MediaPipeFaces

        return MediaPipeFaces()
    return _of_anyone(name)


def _of_anyone(path: str) -> FaceDetector:
    module, colon, named = path.partition(":")
    if not colon or not module or not named:
        raise UserError(f"detector {path!r}: there are {', '.join(NAMES)}, or a class as package.module:Class")
    try:
        detector = getattr(importlib.import_module(module), named)()
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's module raises
        raise UserError(
            f"detector {path}: cannot be opened ({type(error).__name__}: {error}); it has to be importable from here "
            "and callable without arguments"
        ) from error
    if lacking := [part for part in ("name", "colour", "boxes", "landmarks") if not hasattr(detector, part)]:
        raise UserError(f"detector {path}: has no {', '.join(lacking)}; see FaceDetector in {__name__}")
    return detector


def box_of(points: np.ndarray) -> Box:
    """The box in which dlib's detector would have seen these landmarks, pixels, without the coarse steps of its
    boxes."""
    centre, size = centre_and_size(points)
    middle, half = centre + np.array(BOX_OFFSET) * size, BOX_SIDE * size / 2
    return np.concatenate([middle - half, middle + half])


def centre_and_size(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle and mean side of the box around the outer points; a wide open mouth moves them little."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, max(float((high - low).mean()), 1.0)


def intersection_over_union(a: Box, b: Box) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared)


def best_overlap(box: Box, others: list[Box]) -> tuple[int, float]:
    """Which of the boxes overlaps most, and its intersection over union; (-1, 0.0) where there are none."""
    overlaps = [intersection_over_union(box, other) for other in others]
    return max(enumerate(overlaps), key=lambda pair: pair[1], default=(-1, 0.0))
