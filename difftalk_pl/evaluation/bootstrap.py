"""How certain a mean over clips is."""

from collections.abc import Sequence

import numpy as np

CELLS = 2**21  # numbers that are drawn at a time, 16 MiB


def interval(
    values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13.

    Clips are drawn, not frames: frames of one clip are far from independent. The same values and seed give the same
    interval. Of few clips it is too narrow.

    Args:
        values: one of every clip.
        confidence: share of the resampled means that lie within.

    Returns:
        Both ends, or None for fewer than two values.
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, CELLS // len(numbers))
    for start in range(0, resamples, chunk):
        part = means[start : start + chunk]
        part[:] = numbers[rng.integers(len(numbers), size=(len(part), len(numbers)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
