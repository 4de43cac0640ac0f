"""From detections to a crop: fill gaps, smooth jitter, choose the one fixed square of the clip."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from difftalk_pl.errors import UserError
from difftalk_pl.media.colour import ToRGB

MARGIN = 2.2  # square over face (brows to chin, ear to ear): HDTF's own crops lie between 1.9 and 2.4
FACE_HEIGHT = 0.6  # place of the landmarks' middle in the square, from the top: hair and forehead are above them
OUTSIDE = 0.1  # of the face may lie outside of the frame
JAW = (0, 16)  # the ends of the jaw line, at the ears
HALVED_CHROMA = ("yuv420p", "yuvj420p", "nv12", "yuv420p10le")


class Crop(NamedTuple):
    """A square of the source's frame, pixels."""

    x: int
    y: int
    side: int


def fill_gaps(landmarks: np.ndarray, max_gap: int = 12, fps: float = 25) -> np.ndarray:
    """Fill gaps, NaN in (T, 68, 2), of up to `max_gap` frames by straight lines; hold the nearest frame at the ends.

    Raises:
        UserError: no face at all, or a longer gap; says how long and where.
    """
    missing = np.isnan(landmarks).any(axis=(1, 2))
    if missing.all():
        raise UserError("no face found")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        if stop - start > max_gap:
            minutes, seconds = divmod(start / fps, 60)
            raise UserError(f"no face for {(stop - start) / fps:.1f} s at {int(minutes):02d}:{seconds:04.1f}")
    known, every = np.flatnonzero(~missing), np.arange(len(landmarks))
    columns = landmarks.reshape(len(landmarks), -1)
    filled = np.stack([np.interp(every, known, column[known]) for column in columns.T], axis=1)
    return filled.reshape(landmarks.shape).astype(np.float32)


def smooth(landmarks: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth along time by a Gaussian, `sigma` in frames, 0 for none; takes off the detector's jitter, not the motion.

    At 25 fps sigma = 0.7 keeps 88 % of a motion of 2 Hz and 68 % of one of 5 Hz, and lets 64 % of white jitter through.
    """
    return gaussian_filter1d(landmarks, sigma, axis=0, mode="nearest") if sigma > 0 else landmarks


def face_size(landmarks: np.ndarray) -> float:
    """Return the mean distance between the ends of the jaw line, pixels."""
    return float(np.linalg.norm(landmarks[:, JAW[0]] - landmarks[:, JAW[1]], axis=-1).mean())


def check_face(landmarks: np.ndarray, width: int, height: int, min_face: float) -> None:
    """Raise UserError for a face that is too small to learn from or that leaves the picture."""
    if (size := face_size(landmarks)) < min_face:
        raise UserError(f"face too small: {size:.1f} pixels from ear to ear, at least {min_face:.0f} are needed")
    beyond = np.maximum(-landmarks, landmarks - [width, height]).max(axis=(1, 2))
    if beyond.max() > OUTSIDE * size:
        raise UserError(f"the face leaves the picture: {beyond.max():.0f} pixels outside in frame {beyond.argmax()}")


def crop_square(landmarks: np.ndarray, width: int, height: int, margin: float = MARGIN) -> Crop:
    """Choose one still square for the whole clip, with forehead and chin, as HDTF cuts its clips.

    The side is `margin` times the face, more where the face wanders, and at most the frame's shorter side. The square
    is pushed into the frame, and holds every landmark that lies in it. Its numbers are even where they can be, as video
    halves its colours. Landmarks (T, 68, 2), width and height in pixels.

    Raises:
        UserError: the face wanders further than the frame's shorter side.
    """
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    frame, shorter = np.array([width, height]), min(width, height)
    first, last = np.clip(low.min(axis=0), 0, frame), np.clip(high.max(axis=0), 0, frame)
    needed = int((np.ceil(last) - np.floor(first)).max())
    if needed > shorter:
        raise UserError(f"the face wanders over {needed} pixels, the frame's shorter side has {shorter}; cut the clip")
    side = min(max(round(margin * float(np.median((high - low).max(axis=1)))), needed), shorter)
    side += side % 2 if side < shorter else 0
    lowest, highest = np.maximum(np.ceil(last) - side, 0), np.minimum(np.floor(first), frame - side)
    corner = np.clip((first + last) / 2 - side * np.array([0.5, FACE_HEIGHT]), lowest, highest)
    even = 2 * np.round(corner / 2)
    even += 2 * (even < lowest) - 2 * (even > highest)
    x, y = np.where((even >= lowest) & (even <= highest), even, lowest).astype(int).tolist()
    return Crop(x, y, side)


def cut_frame(frame: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Cut the square out of (H, W, 3) uint8 at the clip's size; Lanczos over all pixels, so nothing aliases."""
    square = frame[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
    if crop.side == size:
        return square
    return np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((size, size), Image.Resampling.LANCZOS))


class CutSquare:
    """Convert decoded frames to (size, size, 3) uint8 RGB of one square, as `cut_frame` does: within 0.6 levels RMS.

    The square is cut first, in a quarter of the time, but where frames are rotated or have oblong pixels, or the square
    lies between two chroma samples.
    """

    def __init__(self, stream: VideoStream, crop: Crop, size: int) -> None:
        self.crop, self.size, self.to_rgb = crop, size, ToRGB(stream)
        self._graphs: dict[tuple[str, int, int], Graph] = {}

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        oblong, between = self.to_rgb.aspect != 1, any(number % 2 for number in self.crop)
        if frame.rotation or oblong or between or frame.format.name not in HALVED_CHROMA:
            return cut_frame(self.to_rgb(frame), self.crop, self.size)
        kind = (frame.format.name, frame.width, frame.height)
        graph = self._graphs.get(kind) or self._graphs.setdefault(kind, self._cutter(frame))
        graph.vpush(frame)
        return self.to_rgb(graph.vpull(), self.size)

    def _cutter(self, frame: VideoFrame) -> Graph:
        """Build a filter that gives a view into the frame, with its colour tags."""
        graph, (x, y, side) = Graph(), self.crop
        graph.threads = 1
        graph.link_nodes(
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
            graph.add("crop", f"{side}:{side}:{x}:{y}"),
            graph.add("buffersink"),
        ).configure()
        return graph
