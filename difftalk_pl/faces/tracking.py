"""Finding one face through a clip: the detector now and then, 68 landmarks chained from frame to frame in between.

Detecting in every frame costs ten times as much and lets the landmarks jump with the detector's coarse boxes;
chaining alone would go on drawing a face after a cut. So a chained face counts only between two detections that
confirm it, and where a detection does not, the frames since the last one are looked at again, one by one.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from PIL import Image

from difftalk_pl.faces.detectors import (
    Box,
    FaceDetector,
    best_overlap,
    box_of,
    centre_and_size,
    intersection_over_union,
    open_detector,
)
from difftalk_pl.faces.dlib_faces import MODEL, boxes_in, landmarks_in, model_path

__all__ = ["FaceTrack", "FaceTracker", "box_of", "boxes_in", "intersection_over_union", "landmarks_in", "model_path"]
__all__ += ["MODEL", "track_faces"]
DETECT_SIDE = (320, 640)  # detection runs at half size, but with a long side within these pixels
TINY_SIDE = 800  # frames up to this side are searched at twice the size before they count as faceless
SAME_FACE = 0.3  # intersection over union from which a detection confirms a track
DRIFTED = 0.06  # of the face's size: further from fresh landmarks, the chain starts again at the detection
LOST_FOR = 50  # frames after which a face that comes back is another face
BRIEF = 3  # a track shorter than this many frames is a false alarm, not a face

Describe = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass
class FaceTrack:
    """The face that was largest over time.

    landmarks: (T, 68, 2) float32, pixels x, y; NaN where the face was not found.
    boxes: (T, 4) float32, left, top, right, bottom; NaN likewise.
    detections: runs of the detector.
    faces_seen: faces in the whole clip, this one included; much smaller ones may escape.
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

    @property
    def longest_gap(self) -> int:
        """The most frames in a row without it."""
        return max((len(list(run)) for missing, run in groupby(~self.found) if missing), default=0)


@dataclass(eq=False)  # two tracks are never the same one
class _Track:
    """One face. `box` is where the next frame is searched, `confirmed` the last frame in which a detection agreed,
    `descriptor` what tells people apart, where it was asked for."""

    box: Box
    confirmed: int
    descriptor: np.ndarray | None = None
    alive: bool = True
    points: dict[int, np.ndarray] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)

    def add(self, frame: int, points: np.ndarray) -> None:
        """Landmarks of a frame; where they lie, the face is looked for in the next one."""
        self.points[frame] = points
        self.box = self.boxes[frame] = box_of(points)

    def forget(self, since: int) -> None:
        """Give up the frames after `since`."""
        for number in [number for number in self.boxes if number > since]:
            del self.points[number], self.boxes[number]

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
        describe: (frame, landmarks) -> descriptor, asked once for every new face; it needs frames in colour.
        first: the number of the first frame.
        detector: what finds faces and landmarks; dlib by default.
    """

    def __init__(
        self,
        detect_every: int = 10,
        describe: Describe | None = None,
        first: int = 0,
        detector: FaceDetector | None = None,
    ) -> None:
        self.detect_every, self.describe = max(1, detect_every), describe
        self.detector = detector or open_detector("dlib")
        self.detections, self.first, self.frames = 0, first, first
        self._tracks: list[_Track] = []
        self._recent: deque[np.ndarray] = deque(maxlen=self.detect_every)  # to look at again

    def update(self, frame: np.ndarray) -> None:
        """Take the next frame, (H, W, 3) uint8 RGB, or (H, W) where that is enough for the detector."""
        alive = [track for track in self._tracks if track.alive]
        self.frames += 1
        for track in alive:
            self._add(track, frame, track.box)
        self._recent.append(frame)
        if (self._now - self.first) % self.detect_every == 0:
            self._look(frame, alive)
        elif self._searching():
            found = self._detect(frame, shrink=True)
            apart = [box for box in found if best_overlap(box, [track.box for track in alive])[1] < SAME_FACE]
            self._take_up(frame, apart)

    def result(self) -> FaceTrack:
        """The face that was largest, summed over the frames."""
        faces = self.tracks()
        return self.joined([max(faces, key=lambda track: track.area)] if faces else [], len(faces))

    def tracks(self) -> list[_Track]:
        """All faces, after a last look at them; ask for them once, at the end."""
        alive = [track for track in self._tracks if track.alive]
        if any(track.confirmed < self._now for track in alive):
            self._look(self._recent[-1], alive)
        return [track for track in self._tracks if len(track.boxes) >= min(BRIEF, self.frames - self.first)]

    def joined(self, tracks: list[_Track], faces_seen: int) -> FaceTrack:
        """Tracks of one face at different times as one."""
        landmarks = np.full((self.frames, 68, 2), np.nan, np.float32)
        boxes = np.full((self.frames, 4), np.nan, np.float32)
        for track in tracks:
            landmarks[list(track.points)] = list(track.points.values())
            boxes[list(track.boxes)] = list(track.boxes.values())
        return FaceTrack(landmarks, boxes, self.detections, faces_seen)

    @property
    def _now(self) -> int:
        """The number of the frame that came last."""
        return self.frames - 1

    def _searching(self) -> bool:
        """Whether a face was lost a moment ago or there is none at all, so that waiting for the next detection would
        cost frames."""
        lost = (self._now - max(track.boxes) <= self.detect_every for track in self._tracks if not track.alive)
        return any(lost) or not any(track.alive for track in self._tracks)

    def _add(self, track: _Track, frame: np.ndarray, box: Box) -> None:
        """The landmarks of this frame, where the detector sees any."""
        points = self.detector.landmarks(frame, box)
        if np.isfinite(points).all():
            track.add(self._now, points)

    def _look(self, frame: np.ndarray, alive: list[_Track]) -> None:
        """Hold the live tracks against a detection in the last frame, and take up what else it finds."""
        found = self._detect_for(frame, alive)
        self._give_up([track for track in alive if not self._confirm(track, frame, found)], alive)
        self._take_up(frame, found)

    def _detect(self, frame: np.ndarray, shrink: bool) -> list[Box]:
        self.detections += 1
        small, ratio = _shrink(frame) if shrink else (frame, 1.0)
        return [box / ratio for box in self.detector.boxes(small)]

    def _detect_for(self, frame: np.ndarray, tracks: list[_Track]) -> list[Box]:
        """Detections in the small frame, or in the full one where there is no track yet or the small one misses one."""
        found = self._detect(frame, shrink=True)
        if tracks and all(best_overlap(track.box, found)[1] >= SAME_FACE for track in tracks):
            return found
        return self._detect(frame, shrink=False) or found or self._detect_tiny(frame)

    def _detect_tiny(self, frame: np.ndarray) -> list[Box]:
        """dlib's detector sees nothing below 80 pixels: in small frames, look at twice the size."""
        if max(frame.shape) > TINY_SIDE:
            return []
        height, width = frame.shape[:2]
        large = Image.fromarray(frame).resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
        return [box / 2 for box in self._detect(np.asarray(large), shrink=False)]

    def _confirm(self, track: _Track, frame: np.ndarray, found: list[Box]) -> bool:
        """Whether a detection agrees with a track; takes it out of `found`. A chain that has drifted starts anew."""
        index, overlap = best_overlap(track.box, found)
        if overlap < SAME_FACE:
            return False
        fresh = self.detector.landmarks(frame, found.pop(index))
        if not np.isfinite(fresh).all():
            return False
        if _distance(fresh, track.points.get(self._now)) > DRIFTED:
            self._recheck([track])
            track.add(self._now, fresh)
        track.confirmed = self._now
        return True

    def _give_up(self, tracks: list[_Track], alive: list[_Track]) -> None:
        """Lose tracks that no detection confirmed; one that slipped onto another face goes without a second look."""
        confirmed = [track.box for track in alive if track not in tracks]
        for track in tracks:
            if best_overlap(track.box, confirmed)[1] >= SAME_FACE:
                track.forget(since=track.confirmed)
        self._recheck(tracks)
        for track in tracks:
            track.lose()

    def _take_up(self, frame: np.ndarray, found: list[Box]) -> None:
        """Give detections that belong to no live track to the lost ones that they continue, or to new ones."""
        lost = [track for track in self._tracks if not track.alive and self._now - track.confirmed <= LOST_FOR]
        for box in found:
            points = self.detector.landmarks(frame, box)
            if not np.isfinite(points).all():
                continue
            index, overlap = best_overlap(box, [track.box for track in lost])
            if overlap >= SAME_FACE:
                track = lost.pop(index)
            else:
                self._tracks.append(track := _Track(box, self._now))
            if track.descriptor is None and self.describe is not None:
                track.descriptor = self.describe(frame, points)
            track.add(self._now, points)
            track.alive, track.confirmed = True, self._now

    def _recheck(self, tracks: list[_Track]) -> None:
        """Look again at the frames since these tracks were last confirmed, each with a detection of its own.

        Frames that show no face at the track's place are given up; where the chain has drifted, fresh landmarks replace
        it.
        """
        for number, frame in enumerate(self._recent, self.frames - len(self._recent)):
            doubted = [track for track in tracks if number > track.confirmed and number in track.boxes]
            found = self._detect_for(frame, doubted) if doubted else []
            for track in doubted:
                index, overlap = best_overlap(track.boxes.pop(number), found)
                points = track.points.pop(number)
                if overlap >= SAME_FACE:
                    fresh = self.detector.landmarks(frame, found[index])
                    drifted = np.isfinite(fresh).all() and _distance(fresh, points) > DRIFTED
                    track.add(number, fresh if drifted else points)


def track_faces(
    frames: Iterable[np.ndarray], *, detect_every: int = 10, detector: FaceDetector | None = None
) -> FaceTrack:
    """Follow the faces through (H, W, 3) uint8 RGB frames, or (H, W) ones where the detector needs no colour, holding
    no more than `detect_every` of them; see `FaceTracker`."""
    tracker = FaceTracker(detect_every, detector=detector)
    for frame in frames:
        tracker.update(frame)
    return tracker.result()


def _shrink(frame: np.ndarray) -> tuple[np.ndarray, float]:
    """The frame at the size for detection, and that size over the true one."""
    height, width = frame.shape[:2]
    ratio = min(1.0, min(max(max(height, width) / 2, DETECT_SIDE[0]), DETECT_SIDE[1]) / max(height, width))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)), ratio


def _distance(points: np.ndarray, others: np.ndarray | None) -> float:
    """Mean distance of corresponding landmarks over the size of the face; without others, infinite."""
    if others is None:
        return float("inf")
    return float(np.linalg.norm(points - others, axis=1).mean()) / centre_and_size(points)[1]
