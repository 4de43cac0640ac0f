"""The windows of DeepSpeech's steps that the released code's layout holds -> the steps that they were cut from.

Only windows that were cut as AD-NeRF cuts them tell which step belongs to which moment; others are not used, and what
is wrong with them is said. How windows overlap does not tell whether all of them lie a step too early or too late: the
zeros before the sound do, in the windows of a video's first frames.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from difftalk_pl.data.audio import AROUND, STEPS_PER_FRAME, WINDOW, smoothing_windows

KIND, CHANNELS = "deepspeech", 29
OWN = AROUND[0]  # the slot of the frame itself
SLOTS = sum(AROUND) + 1
SHAPE = (SLOTS, WINDOW, CHANNELS)
LEAD = WINDOW // 2  # steps of a window that lie before its frame
STEP_SECONDS = 0.02
UNSEEN_START = "no window shows where the sound begins, so windows that are all a step off would not be noticed"

Read = Callable[[int], np.ndarray]  # frame of the clip, from 0 -> (8, 16, 29) float32


class Rebuilt(NamedTuple):
    """The steps of a clip, (2T, 29) float32, or None where the windows do not fit; `finding` says what was found."""

    steps: np.ndarray | None
    finding: str


@dataclass
class KnownSteps:
    """A kind of features that is not computed from the sound: its steps are there already."""

    steps: np.ndarray
    name: str = KIND
    channels: int = CHANNELS

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        return self.steps


def rebuild(read: Read, frames: int, first: int = 0) -> Rebuilt:
    """Hold all windows of a clip against W[k][t] = D[2k + t - 8] and put D together where every one of them fits.

    Every file is read several times, so that memory holds one window a frame. Windows that reach beyond the clip show
    sound there, where the clip was cut out of a longer one; the prepared clip has zeros there, as at every cut.

    Args:
        read: gives a frame's file.
        frames: T.
        first: number of the first frame, for messages.

    Raises:
        UserError: a file is damaged.
    """
    for frame in range(frames):
        if (shape := read(frame).shape) != SHAPE:
            return Rebuilt(None, f"the file of frame {first + frame} holds {shape}, expected {SHAPE}")
    own = np.stack([read(frame)[OWN] for frame in range(frames)])
    if not own.any():
        return Rebuilt(None, "all windows are zero")
    findings = [_overlap(own, first) or _start(own, first), _slots(read, own)]
    if any(findings):
        return Rebuilt(None, "; ".join(filter(None, findings)))
    steps = _join(own)[LEAD : LEAD + STEPS_PER_FRAME * frames]
    exact = sum(np.array_equal(smoothing_windows(steps, np.array(frame)), read(frame)) for frame in range(frames))
    return Rebuilt(steps, _praise(steps, frames, exact, _zeros_expected(own, first)))


def _join(own: np.ndarray) -> np.ndarray:
    """(T, 16, C) windows that overlap rightly -> (2T + 14, C): row r is step r - 8."""
    joined = np.zeros((STEPS_PER_FRAME * (len(own) - 1) + WINDOW, own.shape[-1]), np.float32)
    for frame, window in enumerate(own):
        joined[STEPS_PER_FRAME * frame :][:WINDOW] = window
    return joined


def _overlap(own: np.ndarray, first: int) -> str:
    """What is wrong with the windows of consecutive frames; empty where each begins two steps after the last.

    Constant windows begin wherever one likes, so they prove nothing.
    """
    fits = {step: _shifted(own, step) for step in range(WINDOW)}
    right, best = fits[STEPS_PER_FRAME], max(fits, key=lambda step: int(fits[step].sum()))
    expected = WINDOW - STEPS_PER_FRAME
    if right.all():
        others = [step for step in fits if step != STEPS_PER_FRAME and fits[step].all()]
        return f"not verifiable: windows fit {others[0]} steps a frame as well as {STEPS_PER_FRAME}" if others else ""
    if best == STEPS_PER_FRAME:
        wrong = first + int(np.argmin(right))
        return (
            f"only {right.sum()} of {len(right)} windows of consecutive frames share {expected} of {WINDOW} steps; "
            f"those of frames {wrong} and {wrong + 1} do not"
        )
    if 2 * fits[best].sum() <= len(right):
        return f"windows of consecutive frames share 0 of {WINDOW} steps, expected {expected}"
    found = f"windows of consecutive frames share {WINDOW - best} of {WINDOW} steps, expected {expected}: "
    if best == 0:
        return found + "they do not move on"
    return found + f"{best} a frame, so that a window spans {_span(best)} s, not 0.32 s"


def _shifted(own: np.ndarray, step: int) -> np.ndarray:
    """(T - 1,) bool: the next frame's window is this one's, `step` steps on."""
    return (own[1:, : WINDOW - step] == own[:-1, step:]).all(axis=(1, 2))


def _span(step: int) -> str:
    return f"{WINDOW * STEPS_PER_FRAME / step * STEP_SECONDS:.2g}"


def _start(own: np.ndarray, first: int) -> str:
    """What is wrong with where the sound begins; empty where it is right, or no window shows it."""
    expected = _zeros_expected(own, first)
    if not expected or (found := _zeros(own[0])) in expected:
        return ""
    wanted = " or ".join(map(str, expected))
    return f"the window of frame {first} begins with {found} steps of zeros, expected {wanted}: not cut at its moment"


def _zeros_expected(own: np.ndarray, first: int) -> tuple[int, ...]:
    """How many steps before the sound the first window can show; none where they would prove nothing.

    Frames may be numbered from 0 or from 1. A window that is all zero does not show where the sound begins.
    """
    before = [LEAD - STEPS_PER_FRAME * frame for frame in (first, first - 1) if frame >= 0]
    return tuple(before) if before[0] > 0 and own[0].any() else ()


def _zeros(window: np.ndarray) -> int:
    """Steps of zeros at the beginning."""
    return int(np.argmax(window.any(axis=1)))


def _slots(read: Read, own: np.ndarray) -> str:
    """What is wrong with the windows of the frames around; empty where slot j of frame i is the window of i - 4 + j.

    Beyond the clip a slot is zero, or goes on with the steps that the clip's own windows know.
    """
    right, total = np.zeros(SLOTS, int), np.zeros(SLOTS, int)
    beyond, joined = 0, _join(own)
    for frame in range(len(own)):
        windows = read(frame)
        for slot in range(SLOTS):
            of = frame + slot - OWN
            if 0 <= of < len(own):
                total[slot] += 1
                right[slot] += np.array_equal(windows[slot], own[of])
            else:
                beyond += not _may_lie_beyond(windows[slot], of, joined)
    if wrong := [slot for slot in range(SLOTS) if right[slot] < total[slot]]:
        fit = f"{right[wrong].sum()} of {total[wrong].sum()} fit"
        return f"slots {', '.join(map(str, wrong))}: not the windows of the frames i-4 … i+3 around ({fit})"
    return f"windows beyond the first or last frame: {beyond} neither zero nor what follows" if beyond else ""


def _may_lie_beyond(window: np.ndarray, frame: int, joined: np.ndarray) -> bool:
    start = STEPS_PER_FRAME * frame
    rows = np.arange(start, start + WINDOW)
    known = (rows >= 0) & (rows < len(joined))
    return not window.any() or np.array_equal(window[known], joined[rows[known]])


def _praise(steps: np.ndarray, frames: int, exact: int, start: tuple[int, ...]) -> str:
    found = f"{len(steps)} steps rebuilt from {frames} windows, {exact} of them exact"
    if exact < frames:
        found += ", the others look beyond the clip's ends, where it has zeros"
    found += "; the sound begins where it must" if start else f"; {UNSEEN_START}"
    return found if steps[-1].any() else found + "; the last step, which no window shows, is zero"
