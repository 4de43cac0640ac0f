"""The order in which training visits its windows: a pure function of (seed, epoch, rank)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """The index of a window and the epoch it is drawn in, which workers of a DataLoader cannot know otherwise."""

    window: int
    epoch: int


class WindowSampler(Sampler[Draw]):
    """Shuffled windows of one rank.

    Every rank gets equally many; the n mod world_size windows that are left out of an epoch differ between epochs.

    Args:
        n: number of windows.
        seed: of the permutation, together with the epoch.

    Attributes:
        skip: number of draws that the interrupted epoch has already used; reset when another epoch begins.
    """

    def __init__(self, n: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.n, self.seed, self.rank, self.world_size = n, seed, rank, world_size
        self.epoch, self.skip = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls it before every epoch."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        return self.n // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n)
        own = order[self.rank : len(self) * self.world_size : self.world_size][self.skip :]
        return (Draw(int(index), self.epoch) for index in own)
