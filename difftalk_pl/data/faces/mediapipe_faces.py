"""MediaPipe's face mesh as a detector: 468 points, of which 68 stand for iBUG's.

Two ways lead to it. MediaPipe up to 0.10.21 carries its networks (`mediapipe.solutions`); later versions want a file,
face_landmarker.task, which is not part of them.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from difftalk_pl.data.faces.detectors import Box, best_overlap, box_of
from difftalk_pl.errors import UserError
from difftalk_pl.pretrained import checkpoints_folder

MODEL, VARIABLE = "face_landmarker.task", "DIFFTALK_FACE_LANDMARKER"
SOURCE = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MOST_FACES = 4  # in one frame
CONFIDENCE = 0.5
ROOM = (
    2.0  # square that is looked at, in boxes: the network wants hair and chin, and its detector sees large faces best
)
FOUND = 0.2  # intersection over union with the box from which a face is the one that was asked for
IBUG = (  # points of the mesh, in iBUG's order; the usual table, as in MaixPy and LatentSync 1.5
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
    *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inside
)


class MediaPipeFaces:
    """Landmarks between pixels, in colour. Where it sees no face, it says so."""

    name = "mediapipe"
    colour = True

    def __init__(self) -> None:
        self._meshes = _open_meshes()

    def boxes(self, frame: np.ndarray) -> list[Box]:
        return [box_of(points) for points in self._faces(frame, 0, 0, max(frame.shape[:2]))]

    def landmarks(self, frame: np.ndarray, box: Box) -> np.ndarray:
        half = ROOM * max(box[2] - box[0], box[3] - box[1]) / 2
        x, y = (box[:2] + box[2:]) / 2 - half
        faces = self._faces(frame, round(x), round(y), max(1, round(2 * half)))
        index, overlap = best_overlap(box, [box_of(points) for points in faces])
        return faces[index].astype(np.float32) if overlap >= FOUND else np.full((68, 2), np.nan, np.float32)

    def _faces(self, frame: np.ndarray, left: int, top: int, side: int) -> list[np.ndarray]:
        """(68, 2) in the frame's pixels, counted from the middle of the first one, of every face in a square."""
        corner = np.array([left, top])
        return [ibug(mesh) * side + corner - 0.5 for mesh in self._meshes(_square(frame, left, top, side))]


def ibug(mesh: np.ndarray) -> np.ndarray:
    """A face mesh, (468 or 478, 2), to iBUG's 68 points."""
    return mesh[list(IBUG)]


def _square(frame: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """A part of a frame, black beyond its edges: the network wants squares."""
    square = np.zeros((side, side, 3), np.uint8)
    part = frame[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    square[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]] = part
    return square


def _open_meshes() -> Any:
    """RGB frame -> (n, 2) fractions of the frame for every face, by whichever of the two ways is there."""
    try:
        package = importlib.import_module("mediapipe")
    except ImportError as error:
        raise UserError(
            f"detector mediapipe: cannot be imported ({error}); install it by: pip install 'difftalk_pl[mediapipe]'"
        ) from error
    return _task(package) if hasattr(package, "tasks") and _task_file().is_file() else _solution(package)


def _task_file() -> Path:
    return Path(os.environ.get(VARIABLE) or checkpoints_folder() / MODEL)


def _solution(package: Any) -> Any:
    """The networks inside of MediaPipe up to 0.10.21."""
    if not hasattr(package, "solutions"):
        raise UserError(
            f"{_task_file()}: not found; MediaPipe {package.__version__} wants it: download {SOURCE} to there, or name "
            f"it by ${VARIABLE}"
        )
    try:
        network = package.solutions.face_mesh.FaceMesh(
            static_image_mode=True, max_num_faces=MOST_FACES, min_detection_confidence=CONFIDENCE
        )
    except (AttributeError, RuntimeError) as error:  # protobuf 5 and 7
        reason = str(error).splitlines()[0]
        raise UserError(
            f"detector mediapipe: MediaPipe {package.__version__} does not run here ({reason}); it works with protobuf "
            "4.25 and 6.33"
        ) from error

    def meshes(frame: np.ndarray) -> list[np.ndarray]:
        faces = network.process(frame).multi_face_landmarks or []
        return [np.array([(point.x, point.y) for point in face.landmark]) for face in faces]

    return meshes


def _task(package: Any) -> Any:
    """The networks in face_landmarker.task, by MediaPipe's present interface."""
    vision = importlib.import_module("mediapipe.tasks.python.vision")
    base = importlib.import_module("mediapipe.tasks.python").BaseOptions(model_asset_path=str(_task_file()))
    options = vision.FaceLandmarkerOptions(
        base_options=base, num_faces=MOST_FACES, min_face_detection_confidence=CONFIDENCE
    )
    try:
        network = vision.FaceLandmarker.create_from_options(options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{_task_file()}: cannot be opened ({error}); fetch it again from {SOURCE}") from error

    def meshes(frame: np.ndarray) -> list[np.ndarray]:
        image = package.Image(image_format=package.ImageFormat.SRGB, data=frame)
        faces = network.detect(image).face_landmarks
        return [np.array([(point.x, point.y) for point in face]) for face in faces]

    return meshes
