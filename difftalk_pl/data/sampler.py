"""The order in which training visits the windows: a pure function of (seed, epoch, rank), in constant memory."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from difftalk_pl.data.dataset import Draw

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
        for positions in self._positions(0, len(self) * self.world_size):
            for index in shuffled(positions, self.n, self._key(self.epoch)):
                yield Draw(int(index), self.epoch)

    def _positions(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Where in the order of all ranks this rank's draws lie, from `first` to before `end`, in parts."""
        start = max(-((self.rank - first) // self.world_size), self.skip)
        stop = min(-((self.rank - end) // self.world_size), len(self))
        for part in range(start, stop, CHUNK):
            yield np.arange(part, min(part + CHUNK, stop)) * self.world_size + self.rank

    def _key(self, *place: int) -> int:
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])


Pools = Callable[[list[int], list[int]], None]


class PoolSampler(WindowSampler):
    """Windows of a few clips at a time, for disks that read files in one go much faster than at random places.

    The clips come in another order in every epoch and are dealt to pools; the windows of a pool are permuted together.
    All ranks draw from one pool at a time. References lie in the target's own clip, and so in the pool.

    Args:
        ends: windows up to the end of each clip, rising.
        pool: clips a pool, about: all pools of an epoch have equally many, but for one.
        on_pool: told the clips of the pool that begins and of the next one.
    """

    def __init__(
        self,
        ends: np.ndarray,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        pool: int = 32,
        on_pool: Pools | None = None,
    ) -> None:
        super().__init__(int(ends[-1]), seed=seed, rank=rank, world_size=world_size)
        self.starts, self.counts = np.concatenate([[0], ends[:-1]]), np.diff(ends, prepend=0)
        self.pool, self.on_pool = pool, on_pool

    def pools(self, epoch: int) -> list[np.ndarray]:
        """The numbers of the clips of each pool of an epoch, in their order."""
        clips = np.random.default_rng([self.seed, epoch]).permutation(len(self.counts))
        return np.array_split(clips, max(round(len(clips) / self.pool), 1))

    def __iter__(self) -> Iterator[Draw]:
        pools, first = self.pools(self.epoch), 0
        for number, clips in enumerate(pools):
            ends = np.cumsum(self.counts[clips])
            for part, positions in enumerate(self._positions(first, first + int(ends[-1]))):
                if part == 0:
                    self._tell(pools, number)
                places = shuffled(positions - first, int(ends[-1]), self._key(self.epoch, number))
                which = np.searchsorted(ends, places, side="right")
                for index in self.starts[clips[which]] + places - (ends - self.counts[clips])[which]:
                    yield Draw(int(index), self.epoch)
            first += int(ends[-1])

    def _tell(self, pools: list[np.ndarray], number: int) -> None:
        if self.on_pool is not None:
            following = pools[number + 1] if number + 1 < len(pools) else self.pools(self.epoch + 1)[0]
            self.on_pool(pools[number].tolist(), following.tolist())


class ShardSampler(Sampler[int]):
    """A rank's share of the windows in order, without repeating any: for validation and test."""

    def __init__(self, n: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, n, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
