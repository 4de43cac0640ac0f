"""How windows become batches: the order, where latents are read from, and the loader's processes."""

from dataclasses import dataclass
from typing import Any, Literal

from torch.utils.data import DataLoader, Dataset, Sampler

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.dataset import Windows
from difftalk_pl.data.latent_batches import LatentBatches, as_it_is
from difftalk_pl.data.latents import LatentCache, Latents
from difftalk_pl.data.sampler import PoolSampler, WindowSampler
from difftalk_pl.errors import UserError


@dataclass
class Loading:
    """How batches are made.

    Args:
        batch_size: windows a step and process.
        eval_batch_size: windows a step in validation and test.
        workers: loader processes of each process.
        order: shuffled over the whole dataset, or clips: over a few clips at a time, whose latents are read ahead from
            end to end. Not in the paper: for latents on network disks.
        pool: so many clips at a time; two to three pools lie in the page cache.
    """

    batch_size: int = 16
    eval_batch_size: int = 16
    workers: int = 2
    order: Literal["shuffled", "clips"] = "shuffled"
    pool: int = 32

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise UserError(f"data.loading.pool {self.pool}: expected 1 clip or more")


def open_latents(cache: LatentCache, clips: list[Clip], loading: Loading) -> Latents:
    """What the windows of these clips read. Raises UserError where latents are missing."""
    cache.check(clips)
    return cache


def training_order(
    windows: Any, loading: Loading, seed: int, *, rank: int = 0, world_size: int = 1, reads_ahead: bool = True
) -> WindowSampler:
    """The sampler of one rank.

    Args:
        reads_ahead: whether this process reads latents ahead: one of a node does.
    """
    if loading.order == "shuffled":
        return WindowSampler(len(windows), seed=seed, rank=rank, world_size=world_size)
    if not isinstance(windows, Windows):
        raise UserError("data.loading.order clips: for contents frames, latents and images; set it to shuffled")
    ahead = None
    return PoolSampler(windows.ends, seed=seed, rank=rank, world_size=world_size, pool=loading.pool, on_pool=ahead)


def make_loader(
    windows: Dataset, sampler: Sampler, batch_size: int, workers: int, drop_last: bool = False
) -> DataLoader:
    """Batches of these windows in the sampler's order; latents stay float16 in them (see `LatentBatches`)."""
    batches = LatentBatches(windows) if isinstance(windows, Windows) and LatentBatches.can_read(windows) else None
    return DataLoader(
        windows if batches is None else batches,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=None if batches is None else as_it_is,
        drop_last=drop_last,
        persistent_workers=workers > 0,
        pin_memory=False,
    )
