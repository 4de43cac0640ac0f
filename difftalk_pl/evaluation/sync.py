"""How well lips and speech go together, from the embeddings of SyncNet: offset, confidence and distance.

The mean of the distance over clips is known as LSE-D, that of the confidence as LSE-C. They depend on how the face was
cropped, and are comparable only between methods that are scored on the same crops.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, pairwise_distance

LARGEST_SHIFT = 15  # frames, in both directions; as published
EPSILON = 1e-6  # added to every difference, as published


class SyncScores(NamedTuple):
    """Scores of one clip.

    offset: frames by which the speech has to be moved to fit best; negative where it comes too late.
    confidence: how much nearer the best shift is than the median one.
    distance: mean distance at the best shift.
    curve: mean distance at every shift, (31,): entry k is lips of frame i against speech of frame i + k - 15.
    """

    offset: int
    confidence: float
    distance: float
    curve: Tensor


def shifted_distances(lips: Tensor, audio: Tensor, largest_shift: int = LARGEST_SHIFT) -> Tensor:
    """Return d[i][k] = ‖lips_i - audio_{i + k - s} + 1e-6‖ with s the largest shift, as published.

    Beyond its ends the speech counts as zeros. They are part of the published scores, and of those of a clip of a
    second or two a good part.

    Args:
        lips, audio: embeddings of a clip's windows, (N, C).

    Returns:
        (N, 2s + 1).
    """
    if lips.dim() != 2 or lips.shape != audio.shape or not len(lips):
        raise ValueError(
            f"lips are {tuple(lips.shape)}, audio is {tuple(audio.shape)}: expected (N, C) for both, N >= 1"
        )
    padded = pad(audio, (0, 0, largest_shift, largest_shift))
    shifts = range(2 * largest_shift + 1)
    columns = [pairwise_distance(lips, padded[k : k + len(lips)], eps=EPSILON) for k in shifts]
    return torch.stack(columns, dim=1)


def sync_scores(lips: Tensor, audio: Tensor, largest_shift: int = LARGEST_SHIFT) -> SyncScores:
    """Return the scores of a clip from the embeddings of its windows, (N, C) each."""
    curve = shifted_distances(lips, audio, largest_shift).mean(dim=0)
    best = int(curve.argmin())
    distance = float(curve[best])
    return SyncScores(largest_shift - best, float(curve.median()) - distance, distance, curve)
