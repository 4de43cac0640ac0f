"""A clip under other audio: what inference reads through the same Dataset as training."""

from typing import NamedTuple

import numpy as np

from difftalk_pl.data.features.windows import FPS


class Driving(NamedTuple):
    """Other audio for a clip, and the frame of the clip that each frame of the result shows."""

    speech: np.ndarray  # features of the audio, (2T, C), 50 steps a second
    shown: np.ndarray  # (frames,) numbers of the clip's frames; -1 where there is none, whose window cannot be read
    fps: float = FPS  # frames a second of the result


def back_and_forth(frame: np.ndarray | int, frames: int) -> np.ndarray:
    """Return the frame of a short video that is shown at a number beyond its end, without a jump: 0 1 2 1 0 1 2 …"""
    period = max(2 * (frames - 1), 1)
    position = np.asarray(frame) % period
    return np.minimum(position, period - position) if frames > 1 else np.zeros_like(position)
