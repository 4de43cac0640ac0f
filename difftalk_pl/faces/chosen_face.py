"""Which of several people in a video is meant: parts of one person put together, and the person chosen.

Within a shot a face is followed by its place. After a cut another person may sit in the same place, so nothing is
followed over a cut: each shot is looked at anew, and descriptors tell who comes back.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from difftalk_pl.errors import UserError
from difftalk_pl.faces.measured_faces import describe_face
from difftalk_pl.faces.tracking import BRIEF, FaceTrack, FaceTracker

SAME_PERSON = 0.6  # distance of descriptors below which dlib calls two faces one person
CUT_LEVELS, CUT_RATIO = 14, 3  # change at a cut, of 255 and over the usual; real clips of speech stay below 10
THUMBNAIL = 32  # pixels of the longer side at which frames are compared
CHOICES = ("largest", "left", "right")


@dataclass
class Person:
    """Tracks of one face at different times."""

    tracks: list = field(default_factory=list)

    @property
    def area(self) -> float:
        """Of its boxes over all frames, square pixels."""
        return sum(track.area for track in self.tracks)

    @property
    def middle(self) -> float:
        """Mean horizontal place, pixels."""
        return float(np.mean([(box[0] + box[2]) / 2 for track in self.tracks for box in track.boxes.values()]))

    @property
    def frames(self) -> int:
        return sum(len(track.boxes) for track in self.tracks)

    def takes(self, track) -> bool:
        """Whether a track may be this person at another time: never seen together, and one face by descriptor."""
        together = any(not track.boxes.keys().isdisjoint(own.boxes) for own in self.tracks)
        return not together and _distance(self.tracks[0].descriptor, track.descriptor) < SAME_PERSON


class CutFinder:
    """Tells by the change from frame to frame, beside the usual one, where another shot begins."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._usual = 0.0

    def is_cut(self, frame: np.ndarray) -> bool:
        """Take the next frame, (H, W, 3) uint8."""
        step = max(max(frame.shape) // THUMBNAIL, 1)
        small, before = np.asarray(Image.fromarray(frame).reduce(step), np.float32), self._before
        self._before = small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        cut = change > max(CUT_LEVELS, CUT_RATIO * self._usual)
        self._usual += 0.2 * (min(change, CUT_LEVELS) - self._usual)  # a shaking camera becomes usual, a cut does not
        return cut


def follow_face(
    frames: Iterable[np.ndarray],
    choice: str = "largest",
    detect_every: int = 10,
    done: Callable[[int], object] = lambda frames: None,
) -> FaceTrack:
    """Track the faces of a video and take one person's, who may be away and come back.

    Args:
        frames: (H, W, 3) uint8 RGB; a few of them are held.
        choice: largest (over time), left, right, or a number counted from the left, 1 first.
        done: is told after every frame how many are done.

    Raises:
        UserError: no such person; says how many there are. A video without a face is no error.
    """
    check_choice(choice)
    tracker, tracks, cuts = FaceTracker(detect_every, describe_face), [], CutFinder()
    for number, frame in enumerate(frames):
        if cuts.is_cut(frame):
            tracks += tracker.tracks()
            earlier, tracker = tracker, FaceTracker(detect_every, describe_face, first=number)
            tracker.detections = earlier.detections
        tracker.update(frame)
        done(number + 1)
    people = [one for one in _people(tracks + tracker.tracks()) if one.frames >= min(BRIEF, tracker.frames)]
    chosen = _choose(people, choice) if people else Person()
    return tracker.joined(chosen.tracks, len(people))


def check_choice(choice: str) -> None:
    """Raises UserError for what can be no choice, before any work."""
    if choice not in CHOICES and not (choice.isdecimal() and int(choice) > 0):
        raise UserError(f"face {choice!r}: expected {', '.join(CHOICES)} or a number from the left, 1 first")


def _people(tracks: list) -> list[Person]:
    people: list[Person] = []
    for track in sorted(tracks, key=lambda each: each.area, reverse=True):
        person = next((person for person in people if person.takes(track)), None)
        if person is None:
            people.append(person := Person())
        person.tracks.append(track)
    return people


def _choose(people: list[Person], choice: str) -> Person:
    if choice == "largest":
        return max(people, key=lambda person: person.area)
    from_left = sorted(people, key=lambda person: person.middle)
    number = {"left": 1, "right": len(people)}.get(choice) or int(choice)
    if number > len(people):
        raise UserError(f"face {choice}: {len(people)} found; give a number up to that")
    return from_left[number - 1]


def _distance(one: np.ndarray | None, other: np.ndarray | None) -> float:
    return float("inf") if one is None or other is None else float(np.linalg.norm(one - other))
