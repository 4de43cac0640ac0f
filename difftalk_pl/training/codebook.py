"""The codebook during stage 1, over all processes: warm-up and k-means start, revival of unused codes, statistics."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from lightning.pytorch.strategies import Strategy
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, Reconstruction


@dataclass
class Codebook:
    """Training of the codebook. The defaults are the published way.

    Args:
        weight: of the codebook loss.
        warmup: batches without quantisation, after which k-means of encoder outputs becomes the codebook.
        vectors: encoder outputs for k-means.
        revive_after: batches without use after which a code is replaced by an encoder output; 0 is never.
        seed: of warm-up, k-means and revival, together with the number of the batch.
    """

    weight: float = 1.0
    warmup: int = 0
    vectors: int = 65536
    revive_after: int = 0
    seed: int = 0


class CodebookTraining(nn.Module):
    """Follows the batches after the optimizer's step; several processes train as one would on their joined batches.

    The buffers belong to the run's checkpoint, not to the autoencoder.
    """

    idle: Tensor
    cells: Tensor
    counts: Tensor
    revived: Tensor

    def __init__(self, settings: Codebook, codes: int, channels: int) -> None:
        super().__init__()
        if settings.warmup and settings.vectors < codes:
            raise UserError(f"codebook.vectors {settings.vectors}: k-means needs more for {codes} codes: {10 * codes}")
        self.settings = settings
        self.register_buffer("idle", torch.zeros(codes, dtype=torch.long))  # batches since the last use
        self.register_buffer("cells", torch.zeros(settings.vectors if settings.warmup else 0, channels))
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.long), persistent=False)  # of this epoch
        self.register_buffer("revived", torch.zeros((), dtype=torch.long), persistent=False)

    @torch.no_grad()
    def follow(self, autoencoder: Autoencoder, output: Reconstruction, batch: int, strategy: Strategy) -> None:
        """Take in the output of batch number `batch`, counted from 0: of the warm-up, or quantised."""
        if output.indices is not None:
            counts = strategy.reduce(output.indices.flatten().bincount(minlength=len(self.counts)), reduce_op="sum")
            self.counts += counts
            self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))
            if not self.settings.revive_after:
                return
        cells = strategy.all_gather(rearrange(output.z, "b c h w -> (b h w) c").float()).flatten(0, -2)
        if output.indices is not None:
            self._revive(autoencoder.codes.data, cells, batch)
            return
        self._collect(cells, batch)
        if batch == self.settings.warmup - 1:
            self._start(autoencoder, strategy)

    def _collect(self, cells: Tensor, batch: int) -> None:
        """Keep some cells (N, C) of each batch in the second half of the warm-up."""
        first = self.settings.warmup // 2
        per_batch = max(self.settings.vectors // (self.settings.warmup - first), 1)
        if (start := (batch - first) * per_batch) >= 0:
            free = self.cells[start : start + per_batch]
            drawn = self._draw(cells, batch)[: len(free)]
            free[: len(drawn)] = drawn

    def _start(self, autoencoder: Autoencoder, strategy: Strategy) -> None:
        """End the warm-up: latents to unit variance, k-means as codebook, the same in all processes."""
        cells = autoencoder.normalise_latents(self.cells[self.cells.abs().sum(1) > 0])
        centres = kmeans(cells.cpu().numpy(), len(self.counts), self.settings.seed)
        autoencoder.codes.copy_(torch.from_numpy(centres))
        first = {name: value.cpu() for name, value in autoencoder.state_dict().items()}
        autoencoder.load_state_dict(strategy.broadcast(first))

    def _revive(self, codes: Tensor, cells: Tensor, batch: int) -> None:
        """Move unused codes (codes, C), in place, to cells (N, C) drawn from (seed, batch)."""
        unused = self.idle >= self.settings.revive_after
        drawn = self._draw(cells, batch)
        chosen = drawn[(unused.cumsum(0) - 1) % len(drawn)]
        codes.copy_(torch.where(unused[:, None], chosen, codes))
        self.idle.masked_fill_(unused, 0)
        self.revived += unused.sum()

    def _draw(self, cells: Tensor, batch: int) -> Tensor:
        """Shuffle cells (N, C) as a function of (seed, batch): the same in every process and in a resumed run."""
        key = np.random.SeedSequence([self.settings.seed, batch]).generate_state(1, np.uint64)[0]
        order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(int(key >> 1)))
        return cells[order.to(cells.device)]

    def statistics(self) -> dict[str, float]:
        """Return usage, perplexity and the number of revived codes since the last call, which it resets.

        Usage is the fraction of codes in use; perplexity, exp of the entropy, is between 1 and the number of codes.
        """
        values = {"revived_codes": float(self.revived)} if self.settings.revive_after else {}
        if (total := self.counts.sum()) > 0:
            share = self.counts.double() / total
            values["codebook_usage"] = (share > 0).double().mean().item()
            values["codebook_perplexity"] = (-torch.special.xlogy(share, share).sum()).exp().item()
        self.counts.zero_()
        self.revived.zero_()
        return values


def kmeans(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return k-means centres of vectors (N, C), (count, C) float32; a centre that loses its members stays put.

    Raises UserError with fewer distinct vectors than centres.
    """
    if (distinct := len(np.unique(vectors, axis=0))) < count:
        raise UserError(
            f"codebook: {distinct} distinct encoder outputs cannot fill {count} codes: raise codebook.warmup or "
            "vectors, or use larger batches or fewer codes"
        )
    seeds = _spread_seeds(vectors.astype(np.float64), count, np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        return kmeans2(vectors, seeds, minit="matrix")[0].astype(np.float32)


def _spread_seeds(vectors: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw k-means++ seeds in one pass per seed; scipy's own needs time and memory quadratic in `count`."""
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.square(vectors - vectors[chosen[-1]]).sum(1))
        cumulative = distance.cumsum()
        found = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
        chosen.append(min(found, len(vectors) - 1))
    return vectors[chosen]
