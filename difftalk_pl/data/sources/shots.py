"""Where the shots of a video begin: PySceneDetect's detectors on frames that are read here, so that every time is
`pts * time_base` on the container's clock and a broken file is an error.

The library's own reader starts its clock at the first frame and passes over what it cannot decode.
"""

from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from difftalk_pl.data.files.pool import Report
from difftalk_pl.errors import UserError
from difftalk_pl.media.containers import clock_zero, declared_end, end_of, open_media, time_of, video_stream
from difftalk_pl.media.seeking import timeline

DetectorName = Literal["adaptive", "content"]
THRESHOLDS = {"adaptive": 3.0, "content": 27.0}  # the library's own
SIDE = 256  # pixels of the frames that are compared, as the library takes them
REPORT_EVERY = 100  # frames
FPS = 25.0  # of numbers that the library tells frames apart by; the times are kept here
LEAST = 8.0  # mean difference of a cut to one person in the same place; not the library's 15, which passes them over
REPEATED = 0.6  # mean difference, grey values of 255, up to which a picture repeats the one before; compressed twice
REPEATS = 5  # so many in a row at most: still pictures last longer


class Shots(NamedTuple):
    """Times in seconds: where a new shot begins, and where the video ends."""

    cuts: list[float]
    end: float


class Look(NamedTuple):
    """What to look for; see the command `scenes`."""

    detector: DetectorName
    threshold: float


def find_shots(path: Path, look: Look, report: Report) -> Shots:
    """Every hard cut of a video that has two pictures on either side. A shot begins at the time of its first frame.

    Raises:
        MediaError: unreadable, no video track, damaged or cut off.
    """
    cuts = _Cuts(look)
    with open_media(path) as container:
        stream = video_stream(container, path)
        zero, declared = clock_zero(container), declared_end(container, stream)
        scale = min(1, SIDE / max(stream.width, stream.height))
        width, height = max(1, round(stream.width * scale)), max(1, round(stream.height * scale))
        end = zero
        for count, (frame, _) in enumerate(timeline(container, stream, path, FPS), 1):
            time, end = time_of(frame, end) - zero, end_of(frame, stream, end)
            cuts.take(float(time), frame.reformat(width=width, height=height, format="bgr24").to_ndarray())
            if count % REPORT_EVERY == 0 and declared:
                report(round(time), max(1, round(declared - zero)))
    return Shots(cuts.found, float(end - zero))


class _Cuts:
    """A detector of the library, fed with pictures (h, w, 3) and their times.

    Pictures that repeat the one before are left out: in a file that shows each of its pictures twice, all others would
    look like cuts.
    """

    def __init__(self, look: Look) -> None:
        self._detector, self._number = _open_detector(look), _library().FrameTimecode
        self._times: list[float] = []
        self._last: np.ndarray | None = None
        self._repeats = 0
        self.found: list[float] = []

    def take(self, time: float, picture: np.ndarray) -> None:
        if self._last is not None and self._repeats < REPEATS and _difference(picture, self._last) < REPEATED:
            self._repeats += 1
            return
        number = self._number(len(self._times), fps=FPS)
        self._times.append(time)
        self.found += [self._times[cut.frame_num] for cut in self._detector.process_frame(number, picture)]
        self._last, self._repeats = picture, 0


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other.astype(np.int16)).mean())


def described(look: Look) -> dict[str, Any]:
    """All that decides what is found. Raises UserError where PySceneDetect is not installed."""
    return {**look._asdict(), "least": LEAST, "side": SIDE, "repeated": REPEATED, "scenedetect": _library().__version__}


def _open_detector(look: Look) -> Any:
    """A fresh detector of the library. Its own shortest shot is off: it would join a short shot to the next one."""
    library = _library()
    if look.detector == "adaptive":
        return library.AdaptiveDetector(look.threshold, min_content_val=LEAST, min_scene_len=0)
    return library.ContentDetector(threshold=look.threshold, min_scene_len=0)


def _library() -> ModuleType:
    """PySceneDetect. Raises UserError where it is not installed."""
    try:
        import cv2
        import scenedetect
    except ImportError as error:
        raise UserError(f"scenes needs PySceneDetect ({error}): pip install 'difftalk_pl[scenes]'") from error
    cv2.setNumThreads(1)  # each worker is a process
    return scenedetect
