"""The squares of a followed face as a clip that the Dataset reads, for as long as a video is being made."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difftalk_pl.animate.following import Followed, cut_square
from difftalk_pl.data.clips import PREPARED_CRF, Clip
from difftalk_pl.media.video import FrameReader
from difftalk_pl.media.writer import write_video

FILE = "squares.mp4"


@dataclass(frozen=True)
class CutClip(Clip):
    """Usable frames alone, cut and stored as prepared clips store them; the landmarks stay in memory.

    Args:
        points: (T, 68, 2) float32, fractions of the square.
        places: (N,) where each frame of the source lies in the clip; -1 for frames without a face.
    """

    points: np.ndarray = None  # type: ignore[assignment]
    places: np.ndarray = None  # type: ignore[assignment]

    @property
    def landmarks(self) -> np.ndarray:
        return self.points

    def reader(self) -> FrameReader:
        return FrameReader(self.root / FILE)


def cut_clip(frames: Iterable[np.ndarray], followed: Followed, size: int, folder: Path, name: str) -> CutClip:
    """Write the squares of a video's usable frames to the folder. Memory holds one of them.

    Args:
        frames: (H, W, 3) uint8, as many as were followed.
    """
    squares = (
        cut_square(frame, box, size) for frame, box, usable in zip(frames, followed.boxes, followed.usable) if usable
    )
    count = write_video(folder / FILE, squares, crf=PREPARED_CRF, intra=True)
    places = np.where(followed.usable, np.cumsum(followed.usable) - 1, -1)
    return CutClip(folder, name, count, name, points=followed.fractions[followed.usable], places=places)
