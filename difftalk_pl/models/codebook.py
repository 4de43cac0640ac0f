"""The codebook of stage 1: settings, k-means and statistics."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from difftalk_pl.errors import UserError


@dataclass
class Codebook:
    """Training of the codebook. The defaults are the published way.

    Args:
        weight: of the codebook loss.
        warmup: batches without quantisation, after which k-means of encoder outputs becomes the codebook.
        vectors: encoder outputs for k-means.
        update: gradient, as published, or ema: each code is the moving mean of the encoder outputs that chose it, and
            the codebook loss trains the encoder only (VQ-VAE, appendix A.1).
        ema_decay: of these means and of the usage that revive_below looks at, per batch.
        revive_after: batches without use after which a code is replaced by an encoder output; 0 is never.
        revive_below: replace codes whose moving usage is below this fraction of an even share; 0 is never.
        seed: of warm-up, k-means and revival, together with the number of the batch.
    """

    weight: float = 1.0
    warmup: int = 0
    vectors: int = 65536
    update: Literal["gradient", "ema"] = "gradient"
    ema_decay: float = 0.99
    revive_after: int = 0
    revive_below: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ema_decay < 1 or not 0 <= self.revive_below < 1:
            raise UserError(
                f"codebook.ema_decay {self.ema_decay}, revive_below {self.revive_below}: expected fractions below 1"
            )


def code_use(cells: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """Return how often each code was chosen, (codes,), and the sums of its cells, (codes, C), both float32.

    cells: z before quantisation, (N, C). indices: the chosen codes, (N,).
    """
    cells = cells.float()
    counts = cells.new_zeros(codes).index_add_(0, indices, cells.new_ones(len(cells)))
    return counts, cells.new_zeros(codes, cells.shape[1]).index_add_(0, indices, cells)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return a generator that is a function of (seed, step): the same in every process and in a resumed run."""
    key = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> 1))


def kmeans(vectors: np.ndarray, count: int, seed: int = 0, iterations: int = 10) -> np.ndarray:
    """Return k-means centres of vectors (N, C), (count, C) float32; a centre that loses its members stays put.

    Raises UserError with fewer distinct vectors than centres.
    """
    if (distinct := len(np.unique(vectors, axis=0))) < count:
        raise UserError(
            f"codebook: {distinct} distinct encoder outputs cannot fill {count} codes: raise codebook.warmup or "
            "vectors, or use larger batches or fewer codes"
        )
    seeds = _spread_seeds(vectors, count, np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centres, _ = kmeans2(vectors, seeds, iter=iterations, minit="matrix")
    return centres.astype(np.float32)


def _spread_seeds(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k-means++ seeds in one pass per seed; scipy's own needs time and memory quadratic in `count`."""
    vectors = vectors.astype(np.float64)
    chosen = np.empty((count, vectors.shape[1]))
    distance = np.full(len(vectors), np.inf)
    pick = int(rng.integers(len(vectors)))
    for number in range(count):
        chosen[number] = vectors[pick]
        distance = np.minimum(distance, np.square(vectors - vectors[pick]).sum(1))
        cumulative = np.cumsum(distance)
        found = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        pick = min(found, len(vectors) - 1)
    return chosen


def codebook_statistics(counts: Tensor) -> tuple[float, float]:
    """Return usage and perplexity from how often each code was chosen, (codes,).

    Usage is the fraction of codes in use; perplexity, exp of the entropy, is between 1 and the number of codes.
    """
    share = counts.double() / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum()
    return (counts > 0).double().mean().item(), entropy.exp().item()
