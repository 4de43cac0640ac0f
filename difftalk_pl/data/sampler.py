"""The order in which training visits the windows: a pure function of (seed, epoch, rank), in constant memory."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from difftalk_pl.data.windows import Draw

CHUNK = 4096
ROUNDS = 6


def shuffled(positions: np.ndarray, n: int, key: int) -> np.ndarray:
    """A pseudorandom permutation of range(n), evaluated only at `positions`.

    A balanced Feistel network over the next even number of bits; images beyond n are permuted again until they fall
    inside (cycle walking). So an epoch over millions of frames needs no list of them.
    """
    half = max((max(n - 1, 1).bit_length() + 1) // 2, 1)
    low = np.uint64((1 << half) - 1)
    keys = np.random.default_rng([key, n]).integers(0, 2**63, size=ROUNDS, dtype=np.uint64)
    values = np.asarray(positions, dtype=np.uint64).copy()
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & low
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & low)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= n
    return values.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class WindowSampler(Sampler[Draw]):
    """Shuffled windows of one rank for one epoch after another.

    Every rank sees equally many: the n mod world_size windows left over in an epoch are others in the next.

    Args:
        n: number of windows.
        skip: how many of this rank's draws the interrupted epoch has already used; forgotten at the next epoch.
    """

    def __init__(self, n: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.n, self.seed, self.rank, self.world_size = n, seed, rank, world_size
        self.epoch, self.skip = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        return self.n // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        key = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        for start in range(self.skip, len(self), CHUNK):
            positions = np.arange(start, min(start + CHUNK, len(self))) * self.world_size + self.rank
            for index in shuffled(positions, self.n, key):
                yield Draw(int(index), self.epoch)


class ShardSampler(Sampler[int]):
    """A rank's share of the windows in order, without repeating any: for validation and test."""

    def __init__(self, n: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, n, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
