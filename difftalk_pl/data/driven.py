"""A clip that another sound drives: what inference reads through the same Dataset as training."""

from dataclasses import dataclass

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import FPS, STEPS_PER_FRAME
from difftalk_pl.media.video import FrameReader


def back_and_forth(frame: np.ndarray | int, frames: int) -> np.ndarray:
    """0 1 2 1 0 1 2 …: which frame of a short video stands at a number beyond its end, without a jump."""
    period = max(2 * (frames - 1), 1)
    position = np.asarray(frame) % period
    return np.minimum(position, period - position) if frames > 1 else np.zeros_like(position)


@dataclass(frozen=True)
class DrivenClip(Clip):
    """`frames` counts the frames of the result, each of which shows one of the pool under the driving sound.

    Args:
        source: the clip that is shown; references are drawn from all of its frames.
        speech: feature steps of the driving sound, (2T, C), 50 a second.
        shown: (frames,) which frame of the source each one shows; -1 where none, so that its window cannot be read.
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
        """`clip` with the features of another sound; by default it runs back and forth under all of it."""
        if shown is None:
            shown = back_and_forth(np.arange(round(len(speech) // STEPS_PER_FRAME * fps / FPS)), clip.frames)
        name = name or clip.name
        return cls(clip.root, name, len(shown), clip.identity, source=clip, speech=speech, shown=shown, fps=fps)

    @property
    def pool(self) -> int:
        return self.source.frames

    def source_frame(self, frame: int) -> int:
        return int(self.shown[frame])

    def moment(self, frame: int) -> float:
        return frame if self.fps == FPS else frame * FPS / self.fps

    @property
    def pool_landmarks(self) -> np.ndarray:
        return self.source.pool_landmarks

    def features(self, kind: str) -> np.ndarray:
        return self.speech

    def reader(self) -> FrameReader:
        return self.source.reader()
