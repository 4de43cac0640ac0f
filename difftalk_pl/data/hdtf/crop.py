"""Where the face is in an HDTF clip: the published window, or a square about the landmarks of whoever speaks.

A window is pixels of a video of so many lines. A site hands out one picture in several resolutions, so a window is
scaled by the lines; whether it belongs to this file at all is seen by looking for a face that fills it as those of
HDTF do. Where none does, or the tables have no window, the face is found in the whole frame, and the square is made as
HDTF's authors say they made theirs: the region of the face, merged over the frames, enlarged by the published ratio.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from difftalk_pl.data.features.windows import FPS
from difftalk_pl.data.hdtf.tables import Window
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import MARGIN, OUTSIDE, Crop, CutSquare, crop_square, face_size, fill_gaps
from difftalk_pl.faces.track import FaceTrack, track_faces
from difftalk_pl.media.colour import ToLuma
from difftalk_pl.media.video import read_frames

USUAL_RATIO = 1.2  # the median of the tables, and what most of their clips have
REGION = MARGIN / USUAL_RATIO  # of the face, brows to chin. Not published: makes the usual ratio the usual crop
LOOKS = 5  # frames a second that are searched for the face
PRESENT = 0.9  # of those frames have to show it
LARGEST = 4.0  # window over face, ear to ear; HDTF's own lie near 2.5

Frames = Iterable[np.ndarray]


class Part(NamedTuple):
    """Seconds of a file; to its end where `stop` is None."""

    path: Path
    start: float = 0.0
    stop: float | None = None

    def looks(self) -> Iterator[np.ndarray]:
        """(H, W) uint8, brightness, a few times a second."""
        return read_frames(self.path, LOOKS, self.start, self.stop, ToLuma)

    def squares(self, crop: Crop, size: int) -> Iterator[np.ndarray]:
        """(size, size, 3) uint8 RGB, `FPS` a second."""
        return read_frames(self.path, FPS, self.start, self.stop, lambda stream: CutSquare(stream, crop, size))


class Chosen(NamedTuple):
    """A crop, how it came about, and why not otherwise.

    window: as published. scaled: the same at another resolution. landmarks: made here. whole: the file is a square.
    """

    crop: Crop
    how: Literal["window", "scaled", "landmarks", "whole"]
    reason: str = ""


def choose_crop(
    part: Part,
    width: int,
    height: int,
    window: Window | None,
    lines: int | None,
    ratio: float | None,
    look: Callable[[Frames], Frames] = iter,
) -> Chosen:
    """The still square that a clip is cut to.

    Args:
        part: of the video, `width` x `height` pixels.
        window, lines, ratio: as the tables have them.
        look: is given the frames on their way, e.g. to report them.

    Raises:
        UserError: no face, or one that cannot be cut out; says why.
    """
    reason = "the tables have no window"
    if window is not None:
        crop, scale = scaled_window(window, lines or height, height)
        reason = _misfit(crop, width, height) or _face_misfit(part, crop, look)
        if not reason:
            return Chosen(crop, "window" if scale == 1 else "scaled")
    return Chosen(square_about_face(part, width, height, ratio or USUAL_RATIO, look), "landmarks", reason)


def scaled_window(window: Window, lines: int, height: int) -> tuple[Crop, float]:
    """A window of a picture of so many lines in the same picture of another height, and the factor."""
    scale = height / lines
    return Crop(round(window.x * scale), round(window.y * scale), round(window.width * scale)), scale


def square_about_face(
    part: Part,
    width: int,
    height: int,
    ratio: float,
    look: Callable[[Frames], Frames] = iter,
) -> Crop:
    """The merged region of the largest face times `ratio`, inside of the frame. Raises UserError as `crop_square`."""
    seen = track_faces(look(part.looks()), detect_every=1)
    points = _steady(seen)
    low, high = points.min(axis=1), points.max(axis=1)
    face = float(np.median((high - low).max(axis=1)))
    wander = float((high.max(axis=0) - low.min(axis=0)).max()) - face
    return crop_square(points, width, height, margin=ratio * (REGION + max(wander, 0) / face))


def _misfit(crop: Crop, width: int, height: int) -> str:
    """Why a window cannot lie in a frame; empty where it can."""
    if crop.x + crop.side <= width and crop.y + crop.side <= height:
        return ""
    return f"the published window {crop.side} x {crop.side} at {crop.x},{crop.y} reaches beyond {width} x {height}"


def _face_misfit(part: Part, crop: Crop, look: Callable[[Frames], Frames]) -> str:
    """Why the face in a window is not HDTF's; empty where it is."""
    rows, columns = slice(crop.y, crop.y + crop.side), slice(crop.x, crop.x + crop.side)
    inside = (np.ascontiguousarray(frame[rows, columns]) for frame in look(part.looks()))
    seen = track_faces(inside, detect_every=1)
    if not seen.found.any():
        return "no face in the published window"
    points = seen.landmarks[seen.found]
    face = face_size(points)
    beyond = np.maximum(-points, points - crop.side).max(axis=(1, 2))
    held = float((beyond <= OUTSIDE * face).sum()) / len(seen.found)
    if held < PRESENT:
        return f"the published window holds the face in {100 * held:.0f} % of the frames"
    if crop.side > LARGEST * face:
        return f"the published window is {crop.side / face:.1f} times as wide as the face in it"
    return ""


def _steady(seen: FaceTrack) -> np.ndarray:
    """(T, 68, 2) pixels without gaps. Raises UserError where the face is not there most of the time."""
    if (share := float(seen.found.mean())) < PRESENT:
        raise UserError(f"a face in {100 * share:.0f} % of the frames, at least {100 * PRESENT:.0f} % are needed")
    return fill_gaps(seen.landmarks, max_gap=len(seen.found), fps=LOOKS)
