"""A prepared clip that another sound drives: what inference reads through the same Dataset as training."""

from dataclasses import dataclass

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.video import FrameReader


def back_and_forth(frame: np.ndarray | int, frames: int) -> np.ndarray:
    """0 1 2 1 0 1 2 …: which frame of a short video stands at a number beyond its end, without a jump."""
    period = max(2 * (frames - 1), 1)
    position = np.asarray(frame) % period
    return np.minimum(position, period - position) if frames > 1 else np.zeros_like(position)


class _DrivenReader:
    def __init__(self, reader: FrameReader, frames: int) -> None:
        self.reader, self.frames = reader, frames

    def __getitem__(self, frame: int) -> np.ndarray:
        return self.reader[int(back_and_forth(frame, self.frames))]

    def close(self) -> None:
        self.reader.close()


@dataclass(frozen=True)
class DrivenClip(Clip):
    """`frames` counts the driving sound's frames; the video runs back and forth under it.

    Args:
        speech: feature steps of the driving sound, (2 * frames, C).
        pool: frames that the video has; references are drawn from all of them.
    """

    speech: np.ndarray = None  # type: ignore[assignment]
    pool: int = 0

    @classmethod
    def drive(cls, clip: Clip, speech: np.ndarray) -> "DrivenClip":
        """`clip` with the features of another sound."""
        return cls(clip.root, clip.name, len(speech) // 2, clip.identity, speech=speech, pool=clip.frames)

    def source_frame(self, frame: int) -> int:
        return int(back_and_forth(frame, self.pool))

    @property
    def landmarks(self) -> np.ndarray:
        still = Clip(self.root, self.name, self.pool).landmarks
        return still[back_and_forth(np.arange(self.frames), self.pool)]

    def features(self, kind: str) -> np.ndarray:
        return self.speech

    def reader(self):
        return _DrivenReader(super().reader(), self.pool)
