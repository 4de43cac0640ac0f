"""A clip under other audio: what inference reads through the same Dataset as training."""

from dataclasses import dataclass

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import FPS, STEPS_PER_FRAME
from difftalk_pl.media.video import FrameReader


def back_and_forth(frame: np.ndarray | int, frames: int) -> np.ndarray:
    """Return the frame of a short video that is shown at a number beyond its end, without a jump: 0 1 2 1 0 1 2 …"""
    period = max(2 * (frames - 1), 1)
    position = np.asarray(frame) % period
    return np.minimum(position, period - position) if frames > 1 else np.zeros_like(position)


@dataclass(frozen=True)
class DrivenClip(Clip):
    """`frames` counts the frames of the result, each of which shows one of the source under the driving audio.

    Args:
        source: the clip that is shown; references are drawn from all of its frames.
        speech: feature steps of the driving audio, (2T, C), 50 a second.
        shown: (frames,) number of the source's frame; -1 where there is none, so that its window cannot be read.
        fps: frames a second of the result.
    """

    source: Clip = None  # type: ignore[assignment]
    speech: np.ndarray = None  # type: ignore[assignment]
    shown: np.ndarray = None  # type: ignore[assignment]
    fps: float = FPS

    @classmethod
    def drive(
        cls, clip: Clip, speech: np.ndarray, shown: np.ndarray | None = None, fps: float = FPS, name: str = ""
    ) -> "DrivenClip":
        """Give `clip` the features of other audio; by default it runs back and forth under all of it."""
        if shown is None:
            shown = back_and_forth(np.arange(round(len(speech) // STEPS_PER_FRAME * fps / FPS)), clip.frames)
        return cls(clip.root, name or clip.name, len(shown), clip.identity, clip, speech, shown, fps)

    @property
    def pool(self) -> int:
        return self.source.frames

    @property
    def pool_landmarks(self) -> np.ndarray:
        return self.source.pool_landmarks

    def source_frame(self, frame: int) -> int:
        return int(self.shown[frame])

    def moment(self, frame: int) -> float:
        return frame if self.fps == FPS else frame * FPS / self.fps

    def features(self, kind: str) -> np.ndarray:
        return self.speech

    def reader(self) -> FrameReader:
        return self.source.reader()
