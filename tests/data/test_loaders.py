"""The orders of training and where its latents are read from, as the data module's options say."""

import sys
from itertools import pairwise

import pytest
import torch
from difftalk_pl.data.latents.memory import LatentMemory

from difftalk_pl.data.datamodule import Loading
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError
from tests.data.test_datamodule import frames_of, module
from tests.data.test_dataset import assert_equal

ALL_TRAIN = Split(val=0.0, test=0.0)
BY_CLIPS = Loading(8, 8, 0, order="clips", pool=1)


def by_clips(root, **options):
    data = module(root, split=ALL_TRAIN, loading=BY_CLIPS, **options)
    data.setup("fit")
    return data.train_dataloader()


def test_pools_of_one_clip_are_drawn_one_after_the_other(talkers):
    clips = [clip for batch in by_clips(talkers) for clip in batch["clip"]]
    assert len(clips) == 3 * 130 - 3 * 130 % 8
    changes = [one for one, other in pairwise(clips) if one != other]
    assert len(changes) == 2 and len(set(changes)) == 2


def test_an_interrupted_epoch_of_pools_goes_on_with_the_next_batch(talkers):
    expected = frames_of(by_clips(talkers))
    assert frames_of(by_clips(talkers, restart=20)) == expected[20:]
    assert all(one != other for one, other in pairwise(expected))


def test_one_process_of_a_node_reads_ahead(talkers):
    ahead = []
    for rank in range(4):
        data = module(talkers, rank=rank, ranks=4, loading=BY_CLIPS)
        data.trainer.local_rank = rank % 2
        data.setup("fit")
        ahead.append(data.train_dataloader().sampler.on_pool is not None)
    assert ahead == [True, False, True, False]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory without a file is Linux's")
@pytest.mark.parametrize("order", ["shuffled", "clips"])
def test_latents_in_memory_give_the_same_batches(talkers, order):
    batches = []
    for in_memory in (False, True):
        data = module(talkers, loading=Loading(8, 8, 0, order, latents_in_memory=in_memory))
        data.setup("fit")
        assert isinstance(data.windows["train"].latents, LatentMemory) == in_memory
        batches.append([dict(batch) for side in (data.train_dataloader(), data.val_dataloader()) for batch in side])
    assert_equal(*batches)


def test_latents_reach_the_network_in_single_precision(talkers):
    data = module(talkers)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    moved = data.on_after_batch_transfer(batch, 0)
    assert {moved[key].dtype for key in ("z", "z_masked", "z_reference", "audio")} == {torch.float32}
    assert torch.equal(moved["z"], batch["z"].float()) and moved["clip"] == batch["clip"]


def test_pools_that_cannot_be_are_refused(talkers):
    with pytest.raises(UserError, match=r"data\.loading\.pool 0: expected 1 clip or more"):
        Loading(pool=0)
    data = module(talkers, contents="sync", loading=BY_CLIPS)
    data.setup("fit")
    with pytest.raises(UserError, match=r"order clips: .*set it to shuffled"):
        data.train_dataloader()
