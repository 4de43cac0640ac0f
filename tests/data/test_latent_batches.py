"""Whole batches are what the Dataset gives one by one, however they are read."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from difftalk_pl.data import latent_batches
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import EVALUATION, TRAINING, Draw, Windows
from difftalk_pl.data.files import array_file
from difftalk_pl.data.latent_batches import LatentBatches, PackedBatch, to_network_precision
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.loaders import Loading, make_loader, training_order
from difftalk_pl.errors import UserError
from tests.data.conftest import LATENT
from tests.data.test_dataset import CODEC, assert_equal, latent_windows


def one_by_one(windows: Windows, draws) -> dict:
    return default_collate([windows[draw] for draw in draws])


def whole(windows: Windows, draws) -> dict:
    batch = LatentBatches(windows).__getitems__(draws)
    for key in ("z", "z_masked", "z_reference"):
        assert batch[key].dtype == torch.float16
    return to_network_precision(batch)


@pytest.mark.parametrize("smoothing", [(4, 3), (8, 8), (0, 0)])
def test_batches_are_what_the_windows_are(talkers, smoothing):
    """All windows, so those at the ends of clips, where sound is missing, too."""
    windows = latent_windows(talkers, smoothing=smoothing, seed=3)
    draws = [Draw(number, epoch) for number in range(len(windows)) for epoch in (0, 5)]
    assert_equal([whole(windows, draws)], [one_by_one(windows, draws)])


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_them_in_the_samplers_order(talkers, workers):
    windows = latent_windows(talkers)
    sampler = training_order(windows, Loading(), seed=1)
    loader = make_loader(windows, sampler, 50, workers)
    draws = list(sampler)
    expected = [one_by_one(windows, draws[start : start + 50]) for start in range(0, len(draws), 50)]
    batches = list(loader)  # all of them, so that none may share memory with the one before
    assert len(batches[-1]["z"]) == len(draws) % 50 > 0
    assert_equal([to_network_precision(batch) for batch in batches], expected)


def test_processes_that_are_not_forked_read_the_same(talkers):
    windows = latent_windows(talkers)
    batches = LatentBatches(windows)
    before = batches.__getitems__([5, 300])
    assert_equal([dict(pickle.loads(pickle.dumps(batches)).__getitems__([5, 300]))], [dict(before)])
    assert_equal([pickle.loads(pickle.dumps(before))], [dict(before)])
    loader = DataLoader(batches, 2, sampler=[5, 300], num_workers=1, collate_fn=latent_batches.as_it_is,
                        multiprocessing_context="spawn")  # fmt: skip
    assert_equal(list(loader), [dict(before)])


def test_few_open_files_are_enough(talkers, monkeypatch):
    monkeypatch.setattr(array_file.resource, "getrlimit", lambda kind: (8, 0))
    windows = latent_windows(talkers)
    draws = [0, 200, 389, 1, 201, 0]
    batches = LatentBatches(windows)
    assert_equal([to_network_precision(batches.__getitems__(draws))], [one_by_one(windows, draws)])
    assert len(array_file._opened) == 4, "and a batch may hold more clips than that"


@pytest.fixture
def own_latents(talkers, tmp_path) -> tuple[list[Clip], LatentCache]:
    """The clips with latents of their own, to be spoilt."""
    cache = LatentCache(tmp_path, CODEC, "mouth_safe")
    cache.describe()
    clips = open_clips(talkers)
    for clip in clips:
        np.save(cache.path(clip.name), np.zeros((2, clip.frames, *LATENT), np.float16))
    return clips, cache


def test_a_file_that_is_cut_short_while_it_is_open_is_named(own_latents):
    clips, cache = own_latents
    batches = LatentBatches(Windows(clips, TRAINING, latents=cache))
    batches.__getitems__([0])
    with cache.path(clips[0].name).open("r+b") as file:
        file.truncate(500)
    with pytest.raises(UserError, match=rf"{clips[0].name}\.npy: ends before row"):
        batches.__getitems__([10])


def test_latents_of_another_size_and_type_are_named(own_latents):
    clips, cache = own_latents
    np.save(cache.path(clips[1].name), np.zeros((2, clips[1].frames, 3, 8, 8), np.float16))
    with pytest.raises(UserError, match=rf"{clips[1].name}\.npy: latents \(3, 8, 8\), other clips have \(3, 4, 4\)"):
        LatentBatches(Windows(clips, TRAINING, latents=cache)).__getitems__([0, 200])
    np.save(cache.path(clips[2].name), np.zeros((2, clips[2].frames, *LATENT), np.float32))
    with pytest.raises(UserError, match=rf"{clips[2].name}\.npy: holds float32, expected float16"):
        LatentBatches(Windows(clips, TRAINING, latents=cache)).__getitems__([389])


def test_only_windows_for_training_are_read_so(talkers):
    assert LatentBatches.can_read(latent_windows(talkers))
    assert not LatentBatches.can_read(Windows(open_clips(talkers), EVALUATION))


def test_a_batch_is_one_piece_of_memory():
    batch = PackedBatch.empty(3, {"a": (torch.int64, ()), "b": (torch.float16, (2, 5))})
    assert {key: tuple(value.shape) for key, value in batch.items()} == {"a": (3,), "b": (3, 2, 5)}
    assert len({value.untyped_storage().data_ptr() for value in batch.values()}) == 1
    batch["a"][:], batch["b"][:] = torch.arange(3), 7
    assert batch["a"].tolist() == [0, 1, 2], "they do not overlap"


def test_latents_take_the_type_of_the_other_inputs():
    batch = {"z": torch.ones(2, dtype=torch.float16), "audio": torch.ones(2, dtype=torch.bfloat16), "clip": ["a", "b"]}
    assert to_network_precision(batch)["z"].dtype == torch.bfloat16
    assert to_network_precision({"image": 1}) == {"image": 1} and to_network_precision([3]) == [3]
