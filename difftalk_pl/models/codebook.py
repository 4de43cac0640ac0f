"""The codebook of stage 1: its k-means start, its moving means, the revival of dead codes, and its health."""

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from difftalk_pl.errors import UserError

SMOOTHING = 1e-5  # of the counts: Laplace, as in VQ-VAE


@dataclass
class Codebook:
    """How the codebook is learnt and comes to be used. The defaults are the published way.

    Args:
        weight: of the codebook loss.
        warmup: batches that train without quantisation; then k-means of encoder outputs becomes the codebook.
        vectors: encoder outputs that k-means sees.
        update: gradient, as published, or ema: every code is the moving mean of the encoder outputs that chose it, and
            of the codebook loss only the pull on the encoder has a gradient (VQ-VAE, appendix A.1).
        ema_decay: of these means, and of the usage that revive_below looks at; a batch.
        revive_after: a code that nothing has chosen for so many batches becomes an encoder output; 0 is never.
        revive_below: so does a code whose moving usage is below this fraction of an even share; 0 is never.
        seed: of what warm-up collects, of k-means and of revival; with the number of the batch.
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
        if not 0 < self.ema_decay < 1:
            raise UserError(f"codebook.ema_decay {self.ema_decay}: expected more than 0 and less than 1, such as 0.99")
        if not 0 <= self.revive_below < 1:
            raise UserError(
                f"codebook.revive_below {self.revive_below}: expected a fraction of an even share, 0 or more and less "
                "than 1, such as 0.03"
            )
        if min(self.warmup, self.revive_after) < 0:
            raise UserError(
                f"codebook.warmup {self.warmup}, revive_after {self.revive_after}: numbers of batches, 0 or more"
            )


class CodeUse(NamedTuple):
    """What a batch asks of the codes. counts: cells that chose each code, (codes,). sums: of those, (codes, C)."""

    counts: Tensor
    sums: Tensor


def code_use(cells: Tensor, indices: Tensor, codes: int) -> CodeUse:
    """Counts and sums in float32, whatever the precision of the cells, and without waiting for the device.

    cells: z before quantisation, (N, C). indices: the codes they chose, (N,).
    """
    cells = cells.float()
    counts = cells.new_zeros(codes).index_add_(0, indices, cells.new_ones(len(cells)))
    return CodeUse(counts, cells.new_zeros(codes, cells.shape[1]).index_add_(0, indices, cells))


class CodebookKeeper(nn.Module):
    """Moving means and revival. It knows one batch, that of all processes together; `settings.update` gradient without
    revival keeps nothing.

    Its buffers are a part of a run's checkpoint, and no part of the autoencoder. They start with the first batch that
    is quantised: every code as if it had been chosen an even number of times.
    """

    usage: Tensor | None
    sums: Tensor | None
    idle: Tensor | None

    def __init__(self, settings: Codebook, codes: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        ema, below = settings.update == "ema", settings.revive_below > 0
        self.register_buffer("usage", torch.zeros(codes) if ema or below else None)
        self.register_buffer("sums", torch.zeros(codes, channels) if ema else None)
        self.register_buffer("idle", torch.zeros(codes, dtype=torch.long) if settings.revive_after else None)

    @property
    def revives(self) -> bool:
        return self.settings.revive_after > 0 or self.settings.revive_below > 0

    @torch.no_grad()
    def follow(self, codes: Tensor, use: CodeUse) -> None:
        """Take a batch into the statistics, and with ema move the codes (codes, C), in place.

        N' = d N + (1 - d) n, m' = d m + (1 - d) s, code = m' / N', with N' smoothed so that it is never 0. VQ-VAE,
        equations 6 to 8. A code that nothing chooses stays where it is until its N' comes down to the smoothing.
        """
        decay = self.settings.ema_decay
        if self.usage is not None:
            fresh, share = self.usage.sum() == 0, use.counts.mean()
            if self.sums is not None:
                sums = torch.where(fresh, share * codes, self.sums)
                self.sums.copy_(decay * sums + (1 - decay) * use.sums)
            self.usage.copy_(decay * torch.where(fresh, share, self.usage) + (1 - decay) * use.counts)
        if self.idle is not None:
            self.idle.copy_(torch.where(use.counts > 0, 0, self.idle + 1))
        if self.sums is not None and self.usage is not None:
            total = self.usage.sum()
            smoothed = (self.usage + SMOOTHING) / (total + len(codes) * SMOOTHING) * total
            codes.copy_(self.sums / smoothed[:, None])

    @torch.no_grad()
    def revive(self, codes: Tensor, use: CodeUse, cells: Tensor, step: int) -> Tensor:
        """Put dead codes (codes, C), in place, on cells of the batch (N, C), drawn from (seed, step).

        No two take the same cell while there are enough. Returns how many were dead, a number on the device. How many
        that is nobody asks before: numbers of as many cells as there are codes go to the device.
        """
        dead = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
        share = use.counts.mean()
        if self.idle is not None:
            dead |= self.idle >= self.settings.revive_after
        if self.usage is not None and self.settings.revive_below > 0:
            dead |= self.usage < self.settings.revive_below * share
        drawn = torch.randperm(len(cells), generator=step_generator(self.settings.seed, step))[: len(codes)]
        drawn = drawn.to(cells.device, non_blocking=True)
        chosen = cells[drawn[(dead.cumsum(0) - 1) % len(drawn)]].float()
        codes.copy_(torch.where(dead[:, None], chosen, codes))
        if self.usage is not None:
            self.usage.copy_(torch.where(dead, share, self.usage))
        if self.sums is not None:
            self.sums.copy_(torch.where(dead[:, None], share * chosen, self.sums))
        if self.idle is not None:
            self.idle.masked_fill_(dead, 0)
        return dead.sum()


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step, the same in every process and in a resumed run."""
    key = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> 1))


def kmeans(vectors: np.ndarray, count: int, seed: int = 0, iterations: int = 10) -> np.ndarray:
    """k-means of vectors (N, C): `count` centres, (count, C) float32; a centre that loses its members stays put."""
    distinct = len(np.unique(vectors, axis=0))
    if distinct < count:
        raise ValueError(f"{distinct} distinct vectors cannot fill {count} codes: give more images or fewer codes")
    seeds = _spread_seeds(vectors, count, np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        centres, _ = kmeans2(vectors, seeds, iter=iterations, minit="matrix")
    return centres.astype(np.float32)


def _spread_seeds(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ seeds, one pass over the vectors per seed; scipy's own takes time and memory quadratic in `count`."""
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


class CodebookStatistics(NamedTuple):
    usage: float
    perplexity: float


def codebook_statistics(counts: Tensor) -> CodebookStatistics:
    """Health of a codebook from how often each code was chosen, (codes,).

    usage: fraction of the codes chosen at all. perplexity: exp of the entropy, between 1 and the number of codes.
    """
    share = counts.double() / counts.sum().clamp(min=1)
    entropy = -torch.special.xlogy(share, share).sum()
    return CodebookStatistics((counts > 0).double().mean().item(), entropy.exp().item())
