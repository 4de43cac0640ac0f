"""The order of training: shuffled, shared among ranks, and continued where it broke off."""

import itertools

import numpy as np
import pytest

from difftalk_pl.data.sampler import WindowSampler


def drawn(sampler: WindowSampler) -> list[int]:
    draws = list(sampler)
    assert len(draws) == len(sampler) - sampler.skip and {draw.epoch for draw in draws} <= {sampler.epoch}
    return [draw.window for draw in draws]


@pytest.mark.parametrize("n, world_size", [(10, 1), (11, 2), (10000, 3), (3, 4)])
def test_ranks_share_all_windows_but_the_remainder(n, world_size):
    ranks = [drawn(WindowSampler(n, seed=0, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(indices) for indices in ranks} == {n // world_size}
    together = set().union(*ranks)
    assert len(together) == n - n % world_size and together <= set(range(n))


@pytest.mark.parametrize("skip", [0, 1, 5000, 10000])
def test_an_interrupted_epoch_continues_exactly(skip):
    whole, rest = (WindowSampler(20000, seed=3, rank=1, world_size=2) for _ in range(2))
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
    for one, other in itertools.combinations([order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)], 2):
        assert np.mean(np.array(one) == other) < 0.05
