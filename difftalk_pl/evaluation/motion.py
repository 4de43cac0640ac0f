"""Measures of landmarks: the mouth's distance, jitter from frame to frame, and lips that move in silence."""

import numpy as np
import torch
from torch import Tensor

SIDE = 256  # pixels: distances are those in a frame of this side, whatever the frames' own
MOUTH = slice(48, 68)  # outer and inner lips
NOSE_AND_EYES = slice(27, 48)
FRAME = 640  # samples of 16 kHz sound that belong to a frame at 25 fps
FULL_SCALE = 32768
LOUD = 0.95  # quantile over frames that stands for the clip's loud level
BELOW_LOUD = 35.0  # dB under the loud level from which a frame is quiet
FLOOR = -60.0  # dB of full scale under which a frame is quiet in any clip
SHORTEST_SILENCE = 5  # frames, 0.2 s: shorter gaps are closures within words
CLOSING = 3  # frames at the beginning of a silence in which lips may still close


def lmd(generated: Tensor, true: Tensor) -> Tensor:
    """Return the mean distance of the 20 points of the mouth in every frame, (T,) float64, in pixels of 256 x 256.

    Chen et al., "Lip Movements Generation at a Glance", ECCV 2018, move the mean points of the two mouths onto each
    other first. Here the generated frame is an edit of the true one, so the points are compared where they are.

    Args:
        generated, true: (T, 68, 2), fractions of the frame's side.
    """
    return SIDE * (generated[:, MOUTH].double() - true[:, MOUTH].double()).norm(dim=-1).mean(-1)


def acceleration(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the sum of the sizes of all second differences over time: of points their length, of pixels the absolute
    value. The ratio of the generated video's to the true one's is the jitter: steady motion has none.

    Args:
        x: points (T, P, 2) or pixels (T, H, W); a last axis of 2 means points.
        weight: for pixels, (T, H, W); only where it is 1 in all three frames.

    Returns:
        () float64; 0 for fewer than three frames.
    """
    x = x.double()
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    size = second.norm(dim=-1) if x.shape[-1] == 2 else second.abs()
    if weight is not None:
        shown = weight > 0.5
        size = size * (shown[2:] & shown[1:-1] & shown[:-2])
    return size.sum()


def silent_frames(samples: np.ndarray) -> Tensor:
    """Return in which frames nobody speaks, so that lips should be still. Not in the paper.

    A frame is quiet whose RMS lies 35 dB under the clip's loud level (the 95th percentile over frames) or under -60 dB
    of full scale. It is silent within at least 5 quiet frames, without the first 3 of them, in which lips still close.
    A clip without a frame above -60 dB holds no voice: all of it is silent.

    Args:
        samples: (frames * 640,) int16 at 16 kHz.

    Returns:
        (frames,) bool.
    """
    rms = torch.from_numpy(np.array(samples)).view(-1, FRAME).double().square().mean(1).sqrt() / FULL_SCALE
    floor = 10 ** (FLOOR / 20)
    if not (rms >= floor).any():
        return torch.ones(len(rms), dtype=torch.bool)
    quiet = rms < max(floor, float(rms.quantile(LOUD)) * 10 ** (-BELOW_LOUD / 20))
    _, run, lengths = quiet.int().unique_consecutive(return_inverse=True, return_counts=True)
    place = torch.arange(len(rms)) - (lengths.cumsum(0) - lengths)[run]
    return quiet & (lengths[run] >= SHORTEST_SILENCE) & (place >= CLOSING)


def silent_motion(landmarks: Tensor, silent: Tensor) -> Tensor:
    """Return how far the points of the mouth move from every silent frame to the next silent one.

    They are taken relative to the middle of nose and eyes, so that a head that moves does not count.

    Args:
        landmarks: consecutive frames of one clip, (T, 68, 2), fractions of the side.
        silent: (T,) bool of `silent_frames`.

    Returns:
        (pairs,) float64, pixels of a frame of 256 x 256.
    """
    points = landmarks.double()
    mouth = points[:, MOUTH] - points[:, NOSE_AND_EYES].mean(1, keepdim=True)
    steps = SIDE * mouth.diff(dim=0).norm(dim=-1).mean(1)
    return steps[silent[1:] & silent[:-1]]
