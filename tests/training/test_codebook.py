"""Moving means, revival and k-means of the codebook by hand, and in two processes as in one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import distributed, multiprocessing

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig, Reconstruction
from difftalk_pl.models.codebook import Codebook, code_use, codebook_statistics, kmeans
from difftalk_pl.training.codebook import SMOOTHING, CodebookTraining

CODES, CHANNELS, CELLS = 6, 3, 40
CONFIG = AutoencoderConfig((8, 16), layers_per_block=1, codes=CODES, norm_num_groups=4, mid_block_attention=False)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(settings, codes, batches, rank=0, world=1, first=0):
    """Codes and buffers after batches of cells (batches, N, C), of which a rank sees its share."""
    torch.manual_seed(0)
    network, training = Autoencoder(CONFIG), CodebookTraining(settings, CODES, CHANNELS)
    strategy = SingleDeviceStrategy() if world == 1 else DDPStrategy()
    network.codes.data.copy_(codes)
    for step, cells in enumerate(batches.chunk(world, dim=1)[rank], first):
        z = cells.T[None, :, None]
        indices = network.quantise(z).indices if step >= settings.warmup else None
        training.follow(network, Reconstruction(z, z, z.new_zeros(()), indices), step, strategy)
    return {"codes": network.codes.detach(), "revived": training.revived, **training.state_dict()}


def test_moving_means_are_those_computed_by_hand():
    decay, batches = 0.9, draw(5, CELLS, CHANNELS)
    by_hand = draw(CODES, CHANNELS, seed=1).double().numpy()
    counts = np.full(CODES, CELLS / CODES)
    sums = by_hand * counts[:, None]
    for cells in batches.double().numpy():
        chosen = ((cells[:, None] - by_hand) ** 2).sum(-1).argmin(1)
        for code in range(CODES):
            members = cells[chosen == code]
            counts[code] = decay * counts[code] + (1 - decay) * len(members)
            sums[code] = decay * sums[code] + (1 - decay) * members.sum(0)
        by_hand = sums / ((counts + SMOOTHING) / (counts.sum() + CODES * SMOOTHING) * counts.sum())[:, None]
    found = run(Codebook(update="ema", ema_decay=decay), draw(CODES, CHANNELS, seed=1), batches)
    np.testing.assert_allclose(found["codes"].numpy(), by_hand, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "after"), [({"revive_after": 3}, 3), ({"revive_below": 0.2, "ema_decay": 0.5}, 3), ({}, None)]
)
@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_an_unused_code_becomes_an_encoder_output(update, settings, after):
    """Without use, moving usage is 0.5 ** n of an even share: below 0.2 with the third batch."""
    codes = draw(CODES, CHANNELS, seed=1)
    cells = (codes[:5].repeat(8, 1) + 0.01 * draw(CELLS, CHANNELS)).expand(3, -1, -1)
    codes[5] = 50
    for batches in (2, 3):
        found = run(Codebook(update=update, **settings), codes, cells[:batches])
        assert found["revived"] == int(batches == after)
        assert (cells[0] == found["codes"][5]).all(1).any() == (batches == after)


def test_revival_is_a_function_of_seed_and_batch():
    def revived(seed, first):
        codes = torch.full((CODES, CHANNELS), 100.0)
        return run(Codebook(revive_after=1, seed=seed), codes, draw(1, CELLS, CHANNELS), first=first)["codes"]

    assert torch.equal(revived(0, 7), revived(0, 7))
    assert not torch.equal(revived(0, 7), revived(0, 8)) and not torch.equal(revived(0, 7), revived(1, 7))
    assert len(revived(0, 7)[1:].unique(dim=0)) == CODES - 1, "no two codes take the same cell"


WAYS = [Codebook(update="ema", ema_decay=0.8, revive_after=2, revive_below=0.1), Codebook(warmup=2, vectors=24)]


def process(rank, folder):
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = [run(way, draw(CODES, CHANNELS, seed=1), draw(6, CELLS, CHANNELS), rank, 2) for way in WAYS]
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_processes_hold_the_codebook_that_one_has_of_the_joined_batches(tmp_path):
    multiprocessing.start_processes(process, (str(tmp_path),), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for way, left, right in zip(WAYS, *ranks):
        for name, value in run(way, draw(CODES, CHANNELS, seed=1), draw(6, CELLS, CHANNELS)).items():
            assert torch.equal(left[name], right[name]), name
            torch.testing.assert_close(left[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_counts_of_bfloat16_cells_are_float32():
    cells = torch.full((1000, CHANNELS), 1.0, dtype=torch.bfloat16)  # counting to 1000 in bfloat16 ends at 256
    counts, sums = code_use(cells, torch.ones(1000, dtype=torch.long), CODES)
    assert counts.tolist() == [0, 1000, 0, 0, 0, 0] and sums[1].tolist() == [1000] * CHANNELS


def test_kmeans_finds_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-5, 5, (20, 3))
    vectors = np.repeat(centres, 50, axis=0) + rng.normal(0, 0.01, (1000, 3))
    found = kmeans(rng.permutation(vectors).astype(np.float32), 20, seed=3)
    distance = np.linalg.norm(found[:, None] - centres, axis=-1)
    assert sorted(distance.argmin(1)) == list(range(20)) and distance.min(1).max() < 0.01
    with pytest.raises(UserError, match="1 distinct encoder outputs cannot fill 20 codes"):
        kmeans(np.ones((100, 3), np.float32), 20)


@pytest.mark.parametrize(
    ("counts", "usage", "perplexity"), [([5, 5, 0, 0], 0.5, 2.0), ([0, 0], 0.0, 1.0), ([3, 1], 1.0, 1.7547654)]
)
def test_codebook_statistics(counts, usage, perplexity):
    assert codebook_statistics(torch.tensor(counts)) == (usage, pytest.approx(perplexity, rel=1e-6))
