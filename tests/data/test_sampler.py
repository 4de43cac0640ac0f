"""The order of training: a permutation that looks random, shared among ranks, and continued where it broke off."""

import itertools

import numpy as np
import pytest

from difftalk_pl.data.sampler import PoolSampler, ShardSampler, WindowSampler, shuffled

SIZES = (1, 2, 3, 5, 16, 17, 1000, 4097)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("key", [0, 1, 2**32 - 1])
def test_shuffled_is_a_permutation(n, key):
    assert sorted(shuffled(np.arange(n), n, key).tolist()) == list(range(n))


def test_positions_are_independent_of_what_is_asked_with_them():
    whole = shuffled(np.arange(4097), 4097, 5)
    some = np.array([4096, 0, 17, 17, 900])
    np.testing.assert_array_equal(shuffled(some, 4097, 5), whole[some])
    assert shuffled(np.array([], dtype=int), 4097, 5).tolist() == []


def test_millions_need_no_list():
    """Ten positions of a permutation of 10^12 numbers."""
    images = shuffled(np.arange(10) * 10**11, 10**12, 1)
    assert len(set(images.tolist())) == 10 and images.min() >= 0 and images.max() < 10**12


@pytest.mark.parametrize("n", [1000, 4097])
def test_the_order_looks_random(n):
    """No drift with the position, few neighbours stay neighbours, few stay in place, no key resembles another."""
    orders = [shuffled(np.arange(n), n, key) for key in range(20)]
    for order in orders:
        assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < 4 / np.sqrt(n)
        assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / np.sqrt(n)
        assert (np.abs(np.diff(order)) == 1).sum() < 12  # 2 expected
        assert (order == np.arange(n)).sum() < 8  # 1 expected
        assert np.abs(np.bincount(order[: n // 2] * 10 // n, minlength=10) - n / 20).max() < 4 * np.sqrt(n / 20)
    for one, other in itertools.combinations(orders[:8], 2):
        assert (one == other).sum() < 10


def test_all_orders_of_a_few_come_up():
    orders = [tuple(shuffled(np.arange(3), 3, key).tolist()) for key in range(600)]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert min(counts) > 60 and max(counts) < 140


def drawn(sampler: WindowSampler) -> list[int]:
    draws = list(sampler)
    assert len(draws) == len(sampler) - sampler.skip
    assert {draw.epoch for draw in draws} <= {sampler.epoch}
    return [draw.number for draw in draws]


@pytest.mark.parametrize("n, world_size", [(10, 1), (10, 2), (11, 2), (10000, 3), (7, 4), (3, 4)])
def test_ranks_share_all_but_the_remainder(n, world_size):
    ranks = [drawn(WindowSampler(n, seed=0, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(numbers) for numbers in ranks} == {n // world_size}
    together = set().union(*ranks)
    assert len(together) == n - n % world_size and together <= set(range(n))


def test_what_one_epoch_leaves_over_comes_in_others():
    sampler, seen = WindowSampler(7, seed=0, world_size=4), set()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        seen |= set(drawn(sampler))
    assert seen == set(range(7))


@pytest.mark.parametrize("skip", [0, 1, 4095, 4096, 4097, 5000, 10000])
def test_an_interrupted_epoch_goes_on_exactly(skip):
    whole = WindowSampler(20000, seed=3, rank=1, world_size=2)
    rest = WindowSampler(20000, seed=3, rank=1, world_size=2)
    for sampler in (whole, rest):
        sampler.set_epoch(4)
    rest.skip = skip
    rest.set_epoch(4)  # Lightning says it again when the epoch starts
    assert drawn(rest) == drawn(whole)[skip:]
    for sampler in (whole, rest):
        sampler.set_epoch(5)
    assert drawn(rest) == drawn(whole), "the next epoch is whole again"


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = WindowSampler(500, seed=seed)
        sampler.set_epoch(epoch)
        return drawn(sampler)

    assert order(0, 0) == order(0, 0)
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for one, other in itertools.combinations(orders, 2):
        assert np.mean(np.array(one) == other) < 0.05


@pytest.mark.parametrize("n, world_size", [(7, 2), (1, 4), (8, 2), (0, 2)])
def test_shards_cover_everything_once(n, world_size):
    shards = [ShardSampler(n, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(index for shard in shards for index in shard) == list(range(n))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
    assert all(list(shard) == sorted(shard) for shard in shards)


# Pools of clips

COUNTS = (130, 1, 77, 500, 12, 9, 300, 41, 41, 900, 5)
ENDS = np.cumsum(COUNTS)


def pooled(rank: int = 0, world_size: int = 1, epoch: int = 0, ends=ENDS, **options) -> PoolSampler:
    sampler = PoolSampler(ends, seed=3, rank=rank, world_size=world_size, **{"pool": 3} | options)
    sampler.set_epoch(epoch)
    return sampler


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_the_pools_and_all_but_the_remainder(world_size):
    ranks = [drawn(pooled(rank, world_size)) for rank in range(world_size)]
    n = sum(COUNTS)
    assert {len(numbers) for numbers in ranks} == {n // world_size}
    together = np.array(ranks).T.reshape(-1).tolist()  # in the order in which they are drawn
    assert len(set(together)) == n - n % world_size and set(together) <= set(range(n))
    clips, sampler, start = np.searchsorted(ENDS, together, side="right"), pooled(), 0
    for pool in sampler.pools(0):
        size = sum(COUNTS[clip] for clip in pool)
        assert set(clips[start : start + size].tolist()) == set(pool.tolist())
        start += size


def test_every_clip_is_in_one_pool_and_pools_are_alike():
    for epoch in range(5):
        pools = pooled().pools(epoch)
        assert sorted(np.concatenate(pools).tolist()) == list(range(len(COUNTS)))
        assert {len(pool) for pool in pools} <= {2, 3}
    assert [len(pool) for pool in pooled(pool=100).pools(0)] == [len(COUNTS)]


def test_the_order_within_a_pool_looks_random():
    sampler = PoolSampler(np.array([5000, 10000]), seed=0, pool=2)
    order = np.array(drawn(sampler))
    assert abs(np.corrcoef(np.arange(10000), order)[0, 1]) < 0.04
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04
    assert 4800 < (order[: 10000 // 2] < 5000).sum() * 2 < 5200, "both clips come all the time"


@pytest.mark.parametrize("skip", [0, 1, 200, 671])
def test_an_interrupted_epoch_of_pools_goes_on_exactly(skip):
    whole, rest = pooled(1, 3, epoch=4), pooled(1, 3, epoch=4)
    rest.skip = skip
    assert drawn(rest) == drawn(whole)[skip:]


def test_pools_have_orders_of_their_own_in_every_epoch():
    orders = [drawn(pooled(epoch=epoch)) for epoch in range(3)]
    assert drawn(pooled(epoch=1)) == orders[1]
    for one, other in itertools.combinations(orders, 2):
        assert np.mean(np.array(one) == other) < 0.05


def test_pools_are_told_before_they_are_drawn_from():
    told: list = []
    sampler = pooled(1, 2, on_pool=lambda now, following: told.append((now, following)))
    pools = [pool.tolist() for pool in sampler.pools(0)]
    for draw in sampler:
        assert int(np.searchsorted(ENDS, draw.number, side="right")) in told[-1][0]
    assert [now for now, _ in told] == pools
    assert [following for _, following in told] == [*pools[1:], sampler.pools(1)[0].tolist()]
    told.clear()
    sampler.skip = len(sampler) - 1
    assert len(list(sampler)) == 1 and [now for now, _ in told] == pools[-1:], "what is over is not told again"
