"""What SyncNet sees of a clip: windows of five frames, and the 0.2 s of speech that belong to each."""

import numpy as np

from difftalk_pl.data.features.windows import FPS, RATE
from difftalk_pl.errors import UserError

COEFFICIENTS = 13
STEPS_PER_FRAME = 4  # a step every 10 ms
WINDOW_STEPS = 20  # 0.2 s
WINDOW_FRAMES = 5


def sync_windows(frames: int, samples: int, name: str = "the clip") -> int:
    """How many windows the published scores take of a clip: N - 5, where N frames have picture and sound.

    Args:
        frames, samples: at 25 fps and 16 kHz.
        name: what the error calls the clip.

    Raises:
        UserError: there is none.
    """
    both = min(frames, samples * FPS // RATE)
    if both <= WINDOW_FRAMES:
        raise UserError(
            f"{name}: {frames} frames and {samples / RATE:.2f} s of sound are too short for lip-sync scores: "
            f"give at least {WINDOW_FRAMES + 1} frames ({(WINDOW_FRAMES + 1) / FPS:.2f} s) of both"
        )
    return both - WINDOW_FRAMES


def sync_mfcc(samples: np.ndarray, windows: int) -> np.ndarray:
    """Speech of the windows: MFCC of the whole clip with python_speech_features' defaults, steps 4v … 4v + 19.

    Not those of `MFCC`: SyncNet was trained on 13 coefficients every 10 ms, neither dithered nor normalised.

    Args:
        samples: (S,) int16 at 16 kHz.
        windows: how many, from `sync_windows`.

    Returns:
        (windows, 13, 20) float32.
    """
    from python_speech_features import mfcc

    if samples.dtype != np.int16:
        raise ValueError(f"samples are {samples.dtype}: expected int16, whose loudness SyncNet was trained on")
    steps = mfcc(samples, RATE, numcep=COEFFICIENTS).astype(np.float32)
    every_step = np.lib.stride_tricks.sliding_window_view(steps, WINDOW_STEPS, axis=0)
    return every_step[::STEPS_PER_FRAME][:windows]
