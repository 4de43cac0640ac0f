"""Faces through a video: the detector now and then, 68 landmarks chained from frame to frame in between.

Detecting in every frame costs ten times as much and lets the landmarks jump with the detector's coarse boxes;
chaining alone would go on drawing a face after a cut. So chained landmarks count only between two detections that
confirm them; elsewhere the detector looks at every frame.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple

import numpy as np
from PIL import Image

from difftalk_pl.errors import UserError
from difftalk_pl.faces.detect import (
    SAME_FACE,
    best_overlap,
    box_of,
    boxes_in,
    centre_and_size,
    describe_face,
    landmarks_in,
)

DETECT_SIDE = (320, 640)  # detection runs at half size, but with a long side within these pixels
TINY_SIDE = 800  # frames up to this side are searched at twice the size before they count as faceless
DRIFTED = 0.06  # of the face's size: further from fresh landmarks, a chain starts again at the detection
LOST_FOR = 50  # frames after which a face that comes back is another face
BRIEF = 3  # a face in fewer frames is a false alarm
SAME_PERSON = 0.6  # distance of descriptors below which dlib calls two faces one person
CUT_LEVELS, CUT_RATIO = 14, 3  # change at a cut, of 255 and over the usual; real clips of speech stay below 10
THUMBNAIL = 32  # pixels of the longer side at which frames are compared
CHOICES = ("largest", "left", "right")


class FaceTrack(NamedTuple):
    """One person's face in all frames."""

    landmarks: np.ndarray  # (T, 68, 2) float32, pixels x, y; NaN where the face was not found
    detections: int  # runs of the detector
    faces_seen: int  # people in the whole video
    missed: int  # frames without the face
    longest_gap: int  # the most of them in a row


def track_faces(frames: Iterable[np.ndarray], detect_every: int = 10) -> FaceTrack:
    """Track the face that is largest over time through one shot.

    Args:
        frames: (H, W, 3) uint8 RGB, or (H, W): brightness is enough; `detect_every` of them are held.
        detect_every: frames from one detection to the next.
    """
    tracker = _Tracker(detect_every, describe=False)
    for frame in frames:
        tracker.update(frame)
    return tracker.result("largest")


def follow_face(
    frames: Iterable[np.ndarray],
    choice: str = "largest",
    detect_every: int = 10,
    done: Callable[[int], object] = lambda frames: None,
) -> FaceTrack:
    """Track one person, who may be away and come back, through a video of several shots.

    Nothing is chained over a cut, where another person may sit in the same place: descriptors tell who comes back.

    Args:
        frames: (H, W, 3) uint8 RGB; `detect_every` of them are held.
        choice: largest (over time), left, right, or a number counted from the left, 1 first.
        done: called after every frame with the number of frames so far.

    Raises:
        UserError: no such person; says how many there are. A video without a face is no error.
    """
    if choice not in CHOICES and not (choice.isdecimal() and int(choice) > 0):
        raise UserError(f"face {choice!r}: expected {', '.join(CHOICES)} or a number from the left, 1 first")
    tracker = _Tracker(detect_every, describe=True)
    for number, frame in enumerate(frames, 1):
        tracker.update(frame, tracker.is_cut(frame))
        done(number)
    return tracker.result(choice)


class _Face:
    """Landmarks by frame of one face."""

    def __init__(self, frame: int, points: np.ndarray, descriptor: np.ndarray | None) -> None:
        self.points, self.descriptor = {frame: points}, descriptor

    @property
    def last(self) -> int:
        """Return the newest frame."""
        return next(reversed(self.points))

    def area(self) -> float:
        """Return the sum of the squared sizes."""
        return sum(centre_and_size(points)[1] ** 2 for points in self.points.values())

    def place(self) -> float:
        """Return the mean horizontal place."""
        return float(np.mean([centre_and_size(points)[0][0] for points in self.points.values()]))

    def is_person(self, other: "_Face") -> bool:
        """Return whether two faces may be one person: never seen together, with descriptors alike."""
        if self.descriptor is None or other.descriptor is None or self.points.keys() & other.points.keys():
            return False
        return float(np.linalg.norm(self.descriptor - other.descriptor)) < SAME_PERSON


class _Tracker:
    """Follows every face, block by block: the frames up to a detection are looked at together."""

    def __init__(self, detect_every: int, describe: bool) -> None:
        self.detect_every, self.describe = max(1, detect_every), describe
        self.detections, self.frames, self.shot = 0, 0, 0
        self._block: list[np.ndarray] = []
        self._faces: list[_Face] = []
        self._thumbnail: np.ndarray | None = None
        self._usual_change = 0.0

    def update(self, frame: np.ndarray, begins_shot: bool = False) -> None:
        """Take the next frame; one that begins a shot continues no face."""
        if begins_shot:
            self._close_block()
            self.shot = self.frames
        self._block.append(frame)
        self.frames += 1
        if (self.frames - 1 - self.shot) % self.detect_every == 0:
            self._close_block()

    def is_cut(self, frame: np.ndarray) -> bool:
        """Return whether the next frame, (H, W, 3) uint8, differs from the last one far more than is usual."""
        small = np.asarray(Image.fromarray(frame).reduce(max(max(frame.shape) // THUMBNAIL, 1)), np.float32)
        change = 0.0 if self._thumbnail is None else float(np.abs(small - self._thumbnail).mean())
        cut = change > max(CUT_LEVELS, CUT_RATIO * self._usual_change)
        self._usual_change += 0.2 * (min(change, CUT_LEVELS) - self._usual_change)  # a shaking camera becomes usual
        self._thumbnail = small
        return cut

    def result(self, choice: str) -> FaceTrack:
        """Put the faces of each person together, and return the chosen one's."""
        self._close_block()
        people: list[_Face] = []
        for face in sorted(self._faces, key=_Face.area, reverse=True):
            if person := next((person for person in people if person.is_person(face)), None):
                person.points |= face.points
            else:
                people.append(face)
        people = [person for person in people if len(person.points) >= min(BRIEF, self.frames)]
        landmarks = np.full((self.frames, 68, 2), np.nan, np.float32)
        if people:
            points = _choose(people, choice).points
            landmarks[list(points)] = list(points.values())
        gaps = [len(list(run)) for missing, run in groupby(np.isnan(landmarks[:, 0, 0])) if missing]
        return FaceTrack(landmarks, self.detections, len(people), sum(gaps), max(gaps, default=0))

    def _close_block(self) -> None:
        """Keep the chains of this block if a detection in its last frame confirms all; else detect in every frame."""
        block, self._block = self._block, []
        first = self.frames - len(block)
        faces = [face for face in self._faces if face.last == first - 1 >= self.shot]
        chains: list[list[np.ndarray]] = []
        for face in faces:
            points = face.points[face.last]
            chains.append([points := landmarks_in(frame, box_of(points)) for frame in block])
        places = [box_of(chain[-1]) for chain in chains if block]
        found = self._detect(block[-1], places) if block else []
        ends = [best_overlap(place, found) for place in places]
        if len(found) == len(chains) and all(
            overlap >= SAME_FACE and _distance(landmarks_in(block[-1], found[index]), chain[-1]) <= DRIFTED
            for (index, overlap), chain in zip(ends, chains)
        ):
            for face, chain in zip(faces, chains, strict=True):
                for number, points in enumerate(chain, first):
                    face.points[number] = points
        else:
            for number, frame in enumerate(block, first):
                self._look(number, frame, found if number == self.frames - 1 else None)

    def _look(self, number: int, frame: np.ndarray, found: list[np.ndarray] | None) -> None:
        """Let every detection in a frame continue the face that was last seen there, or be a new one."""
        recent = [face for face in self._faces if face.last >= max(self.shot, number - LOST_FOR)]
        places = [box_of(face.points[face.last]) for face in recent]
        for box in self._detect(frame, places.copy()) if found is None else found:
            fresh = landmarks_in(frame, box)
            index, overlap = best_overlap(box, places)
            if overlap >= SAME_FACE:
                chained = landmarks_in(frame, places.pop(index))
                recent.pop(index).points[number] = fresh if _distance(fresh, chained) > DRIFTED else chained
            else:
                self._faces.append(_Face(number, fresh, describe_face(frame, fresh) if self.describe else None))

    def _detect(self, frame: np.ndarray, expected: list[np.ndarray]) -> list[np.ndarray]:
        """Detect in the small frame, or at full size where that misses an expected box or none is expected."""
        longer = max(frame.shape)
        found = self._detect_at(frame, min(1.0, min(max(longer / 2, DETECT_SIDE[0]), DETECT_SIDE[1]) / longer))
        if expected and all(best_overlap(box, found)[1] >= SAME_FACE for box in expected):
            return found
        return self._detect_at(frame, 1.0) or (self._detect_at(frame, 2.0) if longer <= TINY_SIDE else [])

    def _detect_at(self, frame: np.ndarray, ratio: float) -> list[np.ndarray]:
        self.detections += 1
        if ratio != 1:
            size = (round(frame.shape[1] * ratio), round(frame.shape[0] * ratio))
            frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0))
        return [box / ratio for box in boxes_in(frame)]


def _choose(people: list[_Face], choice: str) -> _Face:
    if choice == "largest":
        return max(people, key=_Face.area)
    number = {"left": 1, "right": len(people)}.get(choice) or int(choice)
    if number > len(people):
        raise UserError(f"face {choice}: {len(people)} found; give a number up to that")
    return sorted(people, key=_Face.place)[number - 1]


def _distance(points: np.ndarray, others: np.ndarray) -> float:
    """Return the mean distance of corresponding landmarks over the size of the face."""
    return float(np.linalg.norm(points - others, axis=1).mean()) / centre_and_size(points)[1]
