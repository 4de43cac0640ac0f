"""Revival and k-means of the codebook by hand, and in two processes as in one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import distributed, multiprocessing

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig, Reconstruction
from difftalk_pl.training.codebook import Codebook, CodebookTraining, kmeans

CODES, CHANNELS, CELLS = 6, 3, 40
CONFIG = AutoencoderConfig((8, 16), layers_per_block=1, codes=CODES, norm_num_groups=4, mid_block_attention=False)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(settings, codes, batches, rank=0, world=1, first=0):
    """Codes, buffers and statistics after batches of cells (batches, N, C), of which a rank sees its share."""
    torch.manual_seed(0)
    network, training = Autoencoder(CONFIG), CodebookTraining(settings, CODES, CHANNELS)
    strategy = SingleDeviceStrategy() if world == 1 else DDPStrategy()
    network.codes.data.copy_(codes)
    for step, cells in enumerate(batches.chunk(world, dim=1)[rank], first):
        z = cells.T[None, :, None]
        indices = network.quantise(z).indices if step >= settings.warmup else None
        training.follow(network, Reconstruction(z, z, z.new_zeros(()), indices), step, strategy)
    buffers = {"codes": network.codes.detach(), **training.state_dict()}
    return buffers | {name: torch.tensor(value) for name, value in training.statistics().items()}


def test_an_unused_code_becomes_an_encoder_output():
    codes = draw(CODES, CHANNELS, seed=1)
    cells = (codes[:5].repeat(8, 1) + 0.01 * draw(CELLS, CHANNELS)).expand(3, -1, -1)
    codes[5] = 50
    for batches in (2, 3):
        found = run(Codebook(revive_after=3), codes, cells[:batches])
        assert found["revived_codes"] == int(batches == 3)
        assert (cells[0] == found["codes"][5]).all(1).any() == (batches == 3)
        assert found["codebook_usage"] == pytest.approx(5 / 6)
        assert found["codebook_perplexity"] == pytest.approx(5), "each of the five is used by 8 cells"


def test_revival_is_a_function_of_seed_and_batch():
    def revived(seed, first):
        codes = torch.full((CODES, CHANNELS), 100.0)
        return run(Codebook(revive_after=1, seed=seed), codes, draw(1, CELLS, CHANNELS), first=first)["codes"]

    assert torch.equal(revived(0, 7), revived(0, 7))
    assert not torch.equal(revived(0, 7), revived(0, 8)) and not torch.equal(revived(0, 7), revived(1, 7))
    assert len(revived(0, 7)[1:].unique(dim=0)) == CODES - 1, "no two codes take the same cell"


WAYS = [Codebook(revive_after=2), Codebook(warmup=2, vectors=24)]


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


def test_kmeans_finds_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-5, 5, (20, 3))
    vectors = np.repeat(centres, 50, axis=0) + rng.normal(0, 0.01, (1000, 3))
    found = kmeans(rng.permutation(vectors).astype(np.float32), 20, seed=3)
    distance = np.linalg.norm(found[:, None] - centres, axis=-1)
    assert sorted(distance.argmin(1)) == list(range(20)) and distance.min(1).max() < 0.01
    with pytest.raises(UserError, match="1 distinct encoder outputs cannot fill 20 codes"):
        kmeans(np.ones((100, 3), np.float32), 20)
