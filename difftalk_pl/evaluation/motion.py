"""Motion that no speaker makes: jitter from frame to frame, and lips that move in silence."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from difftalk_pl.evaluation.frame_mean import FrameMean
from difftalk_pl.evaluation.landmarks import MOUTH, SIDE

NOSE_AND_EYES = slice(27, 48)
FRAME = 640  # samples of 16 kHz sound that belong to a frame at 25 fps
FULL_SCALE = 32768
LOUD = 0.95  # quantile over frames that stands for the clip's loud level
BELOW_LOUD = 35.0  # dB under the loud level from which a frame is quiet
FLOOR = -60.0  # dB of full scale under which a frame is quiet in any clip
SHORTEST_SILENCE = 5  # frames, 0.2 s: shorter gaps are closures within words
CLOSING = 3  # frames at the beginning of a silence in which lips may still close


class Acceleration(NamedTuple):
    """total: sum of the sizes of all second differences; terms: how many. Both float64."""

    total: Tensor
    terms: Tensor


def acceleration(x: Tensor, weight: Tensor | None = None) -> Acceleration:
    """The size of the second difference over time, of points its length and of pixels its absolute value.

    Steady motion has none, so that a head may turn, and jitter has a large one.

    Args:
        x: points (T, P, 2) or pixels (T, H, W); a last axis of 2 means points.
        weight: for pixels, (T, H, W); only where it is 1 in all three frames.
    """
    x = x.double()
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    size = second.norm(dim=-1) if x.shape[-1] == 2 else second.abs()
    if weight is None:
        return Acceleration(size.sum(), size.new_tensor(size.numel()))
    shown = weight > 0.5
    counted = (shown[2:] & shown[1:-1] & shown[:-2]).double()
    return Acceleration((size * counted).sum(), counted.sum())


class Jitter(Metric):
    """Mean acceleration of the generated video over that of the true one: 1 is as steady, above 1 is less steady.

    `compute` is infinite where nothing but the generated video moves, and nan where neither does or nothing was added.
    """

    full_state_update = False
    higher_is_better = False
    generated: Tensor
    true: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("generated", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("true", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, generated: Tensor, true: Tensor, weight: Tensor | None = None) -> None:
        """Consecutive frames of one clip, as for `acceleration`; of fewer than three nothing is added.

        In a stream, every chunk begins with the last two frames of the one before. The two videos have equal shapes, so
        the ratio of the sums is that of the means.

        Raises:
            ValueError: the shapes differ.
        """
        if generated.shape != true.shape or (weight is not None and weight.shape != true.shape):
            shapes = [tuple(part.shape) for part in (generated, true, weight) if part is not None]
            raise ValueError(f"generated, true and weight are {shapes}: expected equal shapes")
        if len(true) >= 3:
            self.generated += acceleration(generated, weight).total
            self.true += acceleration(true, weight).total

    def compute(self) -> Tensor:
        return self.generated / self.true


def silent_frames(samples: Tensor, frames: int) -> Tensor:
    """In which frames nobody speaks, so that lips should be still.

    A frame is quiet whose RMS lies 35 dB under the clip's loud level (the 95th percentile over frames) or under -60 dB
    of full scale. It is silent within at least 5 quiet frames, without the first 3 of them, in which lips still close.
    A clip without a frame above -60 dB holds no voice: all of it is silent. Not in the paper.

    Args:
        samples: (frames * 640,) int16 at 16 kHz, or an array of them.

    Returns:
        (frames,) bool.

    Raises:
        ValueError: another number of samples.
    """
    samples = torch.as_tensor(samples)
    if samples.shape != (frames * FRAME,):
        raise ValueError(f"samples are {tuple(samples.shape)}: expected ({frames * FRAME},) for {frames} frames")
    rms = samples.view(-1, FRAME).double().square().mean(1).sqrt() / FULL_SCALE
    floor = 10 ** (FLOOR / 20)
    if not (rms >= floor).any():
        return torch.ones(frames, dtype=torch.bool)
    quiet = rms < max(floor, float(rms.quantile(LOUD)) * 10 ** (-BELOW_LOUD / 20))
    _, run, lengths = quiet.int().unique_consecutive(return_inverse=True, return_counts=True)
    place = torch.arange(frames) - (lengths.cumsum(0) - lengths)[run]
    return quiet & (lengths[run] >= SHORTEST_SILENCE) & (place >= CLOSING)


class SilentMotion(FrameMean):
    """How far the points of the mouth move from one silent frame to the next, pixels of a 256 pixel frame per frame.

    They are taken relative to the middle of nose and eyes, so that a head that moves does not count. nan without
    silence.
    """

    higher_is_better = False

    def update(self, landmarks: Tensor, silent: Tensor) -> None:
        """Consecutive frames of one clip: (T, 68, 2), fractions of the side, and (T,) bool of `silent_frames`.

        In a stream, every chunk begins with the last frame of the one before.
        """
        points = landmarks.double()
        mouth = points[:, MOUTH] - points[:, NOSE_AND_EYES].mean(1, keepdim=True)
        steps = SIDE * mouth.diff(dim=0).norm(dim=-1).mean(1)
        self.add(steps[silent[1:] & silent[:-1]])
