"""DataLoaders of windows for the loss, and of whole clips for evaluation."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset

from difftalk_pl.data.dataset import ClipBatches, WindowDataset


@dataclass
class Loading:
    """How windows become batches.

    Args:
        batch_size: windows a step and process.
        eval_batch_size: windows a step in validation and test.
        workers: loader processes of each process.
    """

    batch_size: int = 16
    eval_batch_size: int = 16
    workers: int = 2


def window_loader(
    windows: Dataset, sampler: Iterable, loading: Loading, batch_size: int, drop_last: bool = False
) -> DataLoader:
    """Return the batches of windows in the sampler's order."""
    keep, workers = loading.workers > 0, loading.workers
    return DataLoader(
        windows, batch_size, sampler=sampler, num_workers=workers, drop_last=drop_last, persistent_workers=keep
    )


def clip_loader(windows: WindowDataset, loading: Loading, together: int, rank: int, world_size: int) -> DataLoader:
    """Return the batches of the clips of one rank, which gets every world_size-th clip whole.

    All ranks get the same number of batches, so that their collectives match: those with fewer frames get empty ones
    at the end. One worker at most reads them, so that it knows which clips have failed.
    """
    shards = [
        ClipBatches(windows, range(each, len(windows.clips), world_size), loading.eval_batch_size, together)
        for each in range(world_size)
    ]
    own = shards[rank]
    own.length = max(map(len, shards))
    return DataLoader(own, batch_size=None, num_workers=min(loading.workers, 1))
