"""The Dataset: which frames are targets, where references come from, and the content of windows and batches."""

import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from difftalk_pl.data import clips as clips_module
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import EVALUATION, FRAME, MASKED_FRAME, TRAINING, ClipBatches, WindowDataset
from difftalk_pl.data.features.windows import smoothing_windows
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.sampler import Draw, WindowSampler
from difftalk_pl.errors import UserError
from difftalk_pl.media.video import FrameReader

CODEC = "0123abcd"  # of the fixture's latents
LENGTHS = (61, 100, 119, 120, 121)


def clip_of(frames: int, name: str = "a") -> Clip:
    """A clip without files."""
    return Clip(Path("nowhere"), name, frames)


def latent_windows(root: Path, **options) -> WindowDataset:
    return WindowDataset(open_clips(root), TRAINING, latents=LatentCache(root, CODEC, "mouth_safe"), **options)


def assert_equal(batches: list, others: list) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key, value in batch.items():
            assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key], key


def partners(frame: int, frames: int) -> list[int]:
    """Counted one by one."""
    return [other for other in range(frames) if abs(other - frame) >= 60]


# Targets


def test_windows_number_the_targets_of_all_clips_in_order(monkeypatch):
    clips = [clip_of(frames, f"clip{frames}") for frames in LENGTHS]
    expected = [
        (n, frame) for n, clip in enumerate(clips) for frame in range(clip.frames) if partners(frame, clip.frames)
    ]
    monkeypatch.setattr(WindowDataset, "window", lambda self, number, frame, epoch=0: (number, frame))
    windows = WindowDataset(clips, TRAINING)
    assert [windows[index] for index in range(len(windows))] == expected
    with pytest.raises(IndexError):
        windows[len(windows)]
    few = WindowDataset([clip_of(61), clip_of(200)], TRAINING, frames_per_clip=3)
    assert [few[index] for index in range(len(few))] == [(0, 0), (0, 60), (1, 0), (1, 1), (1, 2)]
    assert len(WindowDataset([clip_of(10), clip_of(61)], FRAME)) == 71, "without references all frames are targets"


def test_short_clips_are_left_out_by_name(caplog):
    caplog.set_level(logging.INFO)
    windows = WindowDataset([clip_of(60, "brief"), clip_of(100, "middling"), clip_of(500)], TRAINING)
    assert [clip.name for clip in windows.clips] == ["middling", "a"] and "brief (60 frames)" in caplog.text
    with pytest.raises(UserError, match="2 given, of which 2 are too short"):
        WindowDataset([clip_of(60), clip_of(3)], TRAINING)


# References


@pytest.mark.parametrize("frame", [0, 65, 129])
def test_references_are_uniform_over_all_frames_far_enough_away(talkers, frame):
    windows = latent_windows(talkers)
    drawn = [windows.window(1, frame, epoch)["reference_frame"] for epoch in range(1000)]
    allowed = partners(frame, 130)
    assert set(drawn) <= set(allowed)
    assert chisquare([drawn.count(other) for other in allowed]).pvalue > 1e-3


def test_references_are_a_function_of_seed_epoch_clip_and_frame(talkers):
    def references(number: int = 0, epoch: int = 0, **options) -> list[int]:
        windows = latent_windows(talkers, **options)
        return [windows.window(number, frame, epoch)["reference_frame"] for frame in range(0, 130, 3)]

    first = references()
    assert references() == first
    for other in (references(epoch=1), references(seed=1), references(number=1)):
        assert np.mean(np.array(other) == first) < 0.2
    alone = WindowDataset(open_clips(talkers)[2:], TRAINING, latents=LatentCache(talkers, CODEC, "mouth_safe"))
    assert [alone.window(0, frame)["reference_frame"] for frame in range(0, 130, 3)] == references(number=2)


# Contents


@pytest.mark.parametrize("policy", ["mouth_safe", "below_nose"])
def test_a_window_holds_pictures_and_conditions_of_its_clip(talkers, policy):
    clip = open_clips(talkers)[2]
    windows, reader = WindowDataset(open_clips(talkers), EVALUATION, mask=MaskPolicy(policy)), clip.reader()
    for frame in (0, 64, 129):
        window = windows.window(2, frame)
        assert (window["clip"], window["frame"]) == (clip.name, frame)
        for key, number in (("image", frame), ("reference", window["reference_frame"])):
            assert window[key].shape == (3, 64, 64) and window[key].dtype == torch.float32
            pixels = (window[key].permute(1, 2, 0).double() + 1) * 127.5
            np.testing.assert_allclose(pixels.numpy(), reader[number], atol=1e-2)
        hidden = MaskPolicy(policy)(clip.landmarks[frame], 64)
        np.testing.assert_array_equal(window["mask"].numpy(), hidden[None])
        assert 0.1 < hidden.mean() < 0.6 and (window["masked"][:, hidden] == 0).all()
        assert torch.equal(window["masked"][:, ~hidden], window["image"][:, ~hidden])
        np.testing.assert_array_equal(window["audio"], smoothing_windows(clip.features("mfcc"), np.array(frame)))
        kept = np.concatenate([clip.landmarks[frame, 0:4], clip.landmarks[frame, 13:48]])
        np.testing.assert_array_equal(window["landmarks"], kept)
        np.testing.assert_array_equal(window["all_landmarks"], clip.landmarks[frame])


def test_other_audio_is_of_another_moment(talkers):
    windows = WindowDataset(open_clips(talkers), ("audio", "other_audio"))
    moments = smoothing_windows(np.array(open_clips(talkers)[0].features("mfcc")), np.arange(130))
    found = []
    for frame in range(0, 130, 3):
        other = windows.window(0, frame)["other_audio"].numpy()
        (moment,) = np.flatnonzero((moments == other).all(axis=(1, 2, 3)))
        assert abs(moment - frame) >= 25
        found.append(moment)
    assert len(set(found)) > 25


def test_latents_are_those_of_frame_and_reference(talkers):
    windows = latent_windows(talkers)
    for draw in (Draw(0, 0), Draw(200, 4), Draw(389, 2)):
        window = windows[draw]
        frame, reference = window["frame"], window["reference_frame"]
        for key, value in (("z", frame), ("z_masked", frame + 0.5), ("z_reference", reference)):
            assert torch.equal(window[key], torch.full((3, 4, 4), value, dtype=torch.float16)), key
        assert "image" not in window and "mask" not in window and abs(frame - reference) >= 60


def test_missing_and_wrong_latents_are_named(talkers, tmp_path):
    clip = open_clips(talkers)[0]
    with pytest.raises(UserError, match=rf"no latents .* as {clip.name}: run cache-latents .*0123abcd-mouth_safe"):
        WindowDataset([clip], TRAINING, latents=LatentCache(talkers, "ffff", "mouth_safe"))[0]
    cache = LatentCache(tmp_path, CODEC, "mouth_safe")
    cache.folder.mkdir(parents=True)
    np.save(cache.path(clip.name), np.zeros((2, 129, 3, 4, 4), np.float16))
    with pytest.raises(UserError, match=r"\(2, 129, 3, 4, 4\) for 130 frames"):
        WindowDataset([clip], TRAINING, latents=cache)[0]
    cache.path(clip.name).write_bytes(b"half a header")
    with pytest.raises(UserError, match=f"{clip.name}.npy: cannot be read"):
        WindowDataset([clip], TRAINING, latents=cache)[0]


# Processes


class OwnedReader(FrameReader):
    """A decoder that only the process that made it may use."""

    def __init__(self, path) -> None:
        super().__init__(path)
        self.owner = os.getpid()

    def __getitem__(self, k: int) -> np.ndarray:
        assert self.owner == os.getpid(), "a decoder was inherited"
        return super().__getitem__(k)


@pytest.mark.parametrize("images", [False, True], ids=["latents", "images"])
def test_batches_do_not_depend_on_the_workers(talkers, images, monkeypatch):
    monkeypatch.setattr(clips_module, "FrameReader", OwnedReader)
    windows = WindowDataset(open_clips(talkers), EVALUATION) if images else latent_windows(talkers)
    sampler = WindowSampler(len(windows), seed=3)
    sampler.set_epoch(2)

    def loaded(workers: int) -> list[dict]:
        context = multiprocessing.get_context("fork") if workers else None
        loader = iter(DataLoader(windows, 8, sampler=sampler, num_workers=workers, multiprocessing_context=context))
        return [next(loader) for _ in range(4)]

    alone = loaded(0)  # its decoders are open when workers are forked
    assert_equal(loaded(2), alone)
    content = pickle.dumps(windows)
    assert len(content) < 5000, "without what it has read"
    assert_equal([pickle.loads(content)[Draw(250, 1)]], [windows[Draw(250, 1)]])


# Batches of whole clips


def places(loader) -> list[list[tuple[str, int]]]:
    windows = [batch["window"] for batch in loader]
    return [[] if window is None else [*zip(window["clip"], window["frame"].tolist())] for window in windows]


def test_clip_batches_hold_the_frames_of_each_clip_in_order(talkers):
    windows = WindowDataset(open_clips(talkers), MASKED_FRAME, frames_per_clip=5)
    a, b, c = (clip.name for clip in windows.clips)
    one_by_one = ClipBatches(windows, [0, 2], 3)
    assert places(one_by_one) == [[(name, frame) for frame in part] for name in (a, c) for part in ((0, 1, 2), (3, 4))]
    together = places(DataLoader(ClipBatches(windows, range(3), 4, together=2), batch_size=None, num_workers=1))
    assert together == [[(name, frame) for frame in part for name in (a, b)] for part in ((0, 1), (2, 3), (4,))] + [
        [(c, 0), (c, 1), (c, 2), (c, 3)],
        [(c, 4)],
    ]
    empty = ClipBatches(windows, [], 4)
    assert len(empty) == 1 and empty[0] == {"window": None, "failed": {}}
    one_by_one.length = 6
    assert places(one_by_one)[4:] == [[], []]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("together", [1, 3])
def test_a_clip_that_cannot_be_read_costs_itself_alone(talkers, monkeypatch, together, workers):
    """It can be read for a while, and fails in the middle of a batch."""
    windows = WindowDataset(open_clips(talkers), MASKED_FRAME, frames_per_clip=7)
    a, b, c = (clip.name for clip in windows.clips)
    read = WindowDataset.window

    def damaged(self, number: int, frame: int, epoch: int = 0):
        if number == 1 and frame >= 4:
            raise UserError("video.mp4: damaged")
        return read(self, number, frame, epoch)

    monkeypatch.setattr(WindowDataset, "window", damaged)
    loader = DataLoader(ClipBatches(windows, range(3), 6, together), batch_size=None, num_workers=workers)
    for _ in range(2):  # the next validation tells it again
        batches = list(loader)
        assert [batch["failed"] for batch in batches if batch["failed"]] == [{b: "video.mp4: damaged"}]
        frames = [place for batch in places(batches) for place in batch]
        assert [frame for name, frame in frames if name == a] == list(range(7))
        assert [frame for name, frame in frames if name == c] == list(range(7))
        assert [frame for name, frame in frames if name == b] in ([], [0, 1, 2, 3])
