"""The clocks of a prepared clip, and the windows that are cut from its speech features."""

import numpy as np

FPS = 25
RATE = 16000
STEPS_PER_FRAME = 2  # features come every 20 ms, frames every 40 ms
STEP = RATE // FPS // STEPS_PER_FRAME  # samples
WINDOW = 16  # steps around a frame, 0.32 s
AROUND = (4, 3)  # smoothing sees frames i-4 … i+3: slot 4 is the frame itself


def audio_windows(steps: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Cut the 16 steps around each frame: W[k][t] = D[2k + t - 8], zeros beyond the clip, as AD-NeRF does.

    The very last step counts as beyond the clip: AD-NeRF drops it, and published models were trained so.

    Args:
        steps: features of a clip, (2T, C).
        frames: frame numbers, any shape (...), possibly beyond the clip; between two frames steps are interpolated.

    Returns:
        (..., 16, C) float32; row 8 is at time k / 25 s.
    """
    index = STEPS_PER_FRAME * np.asarray(frames)[..., None] + np.arange(WINDOW) - WINDOW // 2
    below = np.floor(index).astype(int)
    share = (index - below)[..., None].astype(np.float32)
    windows = _take(steps, below)
    return (1 - share) * windows + share * _take(steps, below + 1) if share.any() else windows


def smoothing_windows(steps: np.ndarray, frames: np.ndarray, around: tuple[int, int] = AROUND) -> np.ndarray:
    """Cut the windows of the frames that the attention over frames sees, by default i-4 … i+3; zeros beyond the clip.

    Returns:
        (..., 8, 16, C) float32; slot 4 is the frame itself. Paper, section 3.2; positions as in AD-NeRF.
    """
    seen = np.asarray(frames)[..., None] + np.arange(-around[0], around[1] + 1)
    windows = audio_windows(steps, seen)
    windows[(seen < 0) | (seen >= len(steps) // STEPS_PER_FRAME)] = 0
    return windows


def _take(steps: np.ndarray, index: np.ndarray) -> np.ndarray:
    inside = (index >= 0) & (index < len(steps) - 1)
    rows = np.asarray(steps[np.where(inside, index, 0)], dtype=np.float32)
    rows[~inside] = 0
    return rows
