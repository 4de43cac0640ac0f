"""The Dataset: which frames are targets, where references come from, and what a window holds."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import EVALUATION, FRAME, TRAINING, Draw, WindowDataset
from difftalk_pl.data.features.windows import smoothing_windows
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.data.sampler import WindowSampler
from difftalk_pl.errors import UserError

CODEC = "0123abcd"  # of the fixture's latents
LENGTHS = (61, 100, 119, 120, 121)


def clip_of(frames: int, name: str = "a") -> Clip:
    """A clip without files."""
    return Clip(Path("nowhere"), name, frames)


def latent_windows(root: Path, **options) -> WindowDataset:
    return WindowDataset(open_clips(root), TRAINING, latents=LatentCache(root, CODEC, "mouth_safe"), **options)


def loaded(windows: WindowDataset, workers: int, epoch: int = 0, n: int = 40) -> list[dict]:
    """The first batches of an epoch in the sampler's order."""
    sampler = WindowSampler(len(windows), seed=3)
    sampler.set_epoch(epoch)
    loader = iter(DataLoader(windows, 8, sampler=sampler, num_workers=workers))
    return [next(loader) for _ in range(n // 8)]


def assert_equal(batches: list[dict], others: list[dict]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key, value in batch.items():
            assert torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key], key


# Targets


def partners(frame: int, frames: int, gap: int = 60) -> list[int]:
    """Counted one by one."""
    return [other for other in range(frames) if abs(other - frame) >= gap]


@pytest.mark.parametrize("frames", [60, *LENGTHS])
def test_targets_are_the_frames_with_a_partner_far_enough_away(frames):
    rule = ReferenceRule(60)
    targets = [rule.target(frames, number) for number in range(rule.targets(frames))]
    assert targets == [frame for frame in range(frames) if partners(frame, frames)]


@pytest.mark.parametrize("gap, frames", [(1, 2), (5, 9), (5, 10), (7, 8), (60, 10)])
def test_targets_with_other_gaps(gap, frames):
    rule = ReferenceRule(gap)
    targets = [rule.target(frames, number) for number in range(rule.targets(frames))]
    assert targets == [frame for frame in range(frames) if partners(frame, frames, gap)]


def test_windows_number_the_targets_of_all_clips_in_order(monkeypatch):
    clips = [clip_of(frames, f"clip{frames}") for frames in LENGTHS]
    windows = WindowDataset(clips, TRAINING)
    expected = [
        (n, frame) for n, clip in enumerate(clips) for frame in range(clip.frames) if partners(frame, clip.frames)
    ]
    monkeypatch.setattr(WindowDataset, "window", lambda self, number, frame, epoch=0: (number, frame))
    assert [windows[index] for index in range(len(windows))] == expected
    assert len(windows) == len(expected)
    for outside in (-1, len(windows)):
        with pytest.raises(IndexError):
            windows[outside]


def test_without_references_all_frames_are_targets():
    assert len(WindowDataset([clip_of(10), clip_of(61)], FRAME)) == 71


def test_only_the_first_targets_of_each_clip(monkeypatch):
    monkeypatch.setattr(WindowDataset, "window", lambda self, number, frame, epoch=0: (number, frame))
    windows = WindowDataset([clip_of(61), clip_of(200)], TRAINING, frames_per_clip=3)
    assert [windows[index] for index in range(len(windows))] == [(0, 0), (0, 60), (1, 0), (1, 1), (1, 2)]


def test_short_clips_are_refused_by_name_and_frames_counted(caplog):
    caplog.set_level(logging.INFO)
    windows = WindowDataset(
        [clip_of(60, "brief"), clip_of(100, "middling"), clip_of(7, "briefer"), clip_of(500)], TRAINING
    )
    assert [clip.name for clip in windows.clips] == ["middling", "a"]
    refused, counted = caplog.records
    assert refused.levelno == logging.WARNING
    assert "brief (60 frames), briefer (7 frames)" in refused.getMessage() and "60 apart" in refused.getMessage()
    assert counted.getMessage().startswith("20 frames are no targets")


def test_nothing_but_short_clips_is_an_error():
    with pytest.raises(UserError, match="2 given, of which 2 are too short"):
        WindowDataset([clip_of(60), clip_of(3)], TRAINING)


# References


@pytest.mark.parametrize("frame", [0, 30, 65, 100, 129])
def test_references_are_uniform_over_all_frames_far_enough_away(talkers, frame):
    windows = latent_windows(talkers)
    drawn = [windows.window(1, frame, epoch)["reference_frame"] for epoch in range(1500)]
    allowed = partners(frame, 130)
    assert set(drawn) <= set(allowed)
    assert chisquare([drawn.count(other) for other in allowed]).pvalue > 1e-3


def test_no_reference_is_ever_nearer(talkers):
    windows = latent_windows(talkers)
    for epoch in range(3):
        for index in range(len(windows)):
            window = windows[Draw(index, epoch)]
            assert abs(window["frame"] - window["reference_frame"]) >= 60


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


def test_fixed_windows_do_not_see_the_epoch(talkers):
    windows = latent_windows(talkers, fixed=True)
    for index in (0, 77, 300):
        assert windows[Draw(index, 0)]["reference_frame"] == windows[Draw(index, 9)]["reference_frame"]
    moving = latent_windows(talkers)
    same = [moving[Draw(i, 0)]["reference_frame"] == moving[Draw(i, 9)]["reference_frame"] for i in range(0, 300, 10)]
    assert np.mean(same) < 0.3


def test_a_lenient_rule_takes_the_furthest_frame():
    rule, random = ReferenceRule(60, lenient=True), np.random.default_rng(0)
    assert rule.targets(40) == 40
    for frames in (1, 2, 39, 40, 119):
        for frame in range(frames):
            reference = rule.draw(frame, frames, random)
            away = max(frame, frames - 1 - frame)
            assert abs(reference - frame) >= 60 if away >= 60 else abs(reference - frame) == away


def test_a_strict_rule_refuses():
    with pytest.raises(ValueError, match="frame 50 of 100 has no partner 60 frames away"):
        ReferenceRule(60).draw(50, 100, np.random.default_rng(0))
    with pytest.raises(UserError, match="min_reference_gap 0: expected 1 or more"):
        ReferenceRule(0)


# Contents


@pytest.mark.parametrize("policy", ["mouth_safe", "below_nose"])
def test_pictures_are_the_readers(talkers, policy):
    clip = open_clips(talkers)[2]
    windows, reader = WindowDataset(open_clips(talkers), EVALUATION, mask=MaskPolicy(policy)), clip.reader()
    for frame in (0, 64, 129):
        window = windows.window(2, frame)
        assert (window["clip"], window["frame"]) == (clip.name, frame)
        for key, number in (("image", frame), ("reference", window["reference_frame"])):
            assert window[key].shape == (3, 64, 64) and window[key].dtype == torch.float32
            pixels = (window[key].permute(1, 2, 0).double() + 1) * 127.5
            np.testing.assert_allclose(pixels.numpy(), reader[number], atol=1e-4)
        hidden = MaskPolicy(policy)(clip.landmarks[frame], 64)
        assert 0.1 < hidden.mean() < 0.6
        np.testing.assert_array_equal(window["mask"].numpy(), hidden[None])
        assert (window["masked"][:, hidden] == 0).all()
        assert torch.equal(window["masked"][:, ~hidden], window["image"][:, ~hidden])


def test_conditions_are_the_clips(talkers):
    clip = open_clips(talkers)[1]
    windows = WindowDataset(open_clips(talkers), EVALUATION)
    features = np.array(clip.features("mfcc"))
    for frame in (0, 50, 129):
        window = windows.window(1, frame)
        assert window["audio"].shape == (8, 16, 26) and window["landmarks"].shape == (39, 2)
        np.testing.assert_array_equal(window["audio"], smoothing_windows(features, np.array(frame)))
        kept = np.concatenate([clip.landmarks[frame, 0:4], clip.landmarks[frame, 13:48]])
        np.testing.assert_array_equal(window["landmarks"], kept)
        np.testing.assert_array_equal(window["all_landmarks"], clip.landmarks[frame])


def test_other_audio_is_of_another_moment(talkers):
    windows = WindowDataset(open_clips(talkers), ("audio", "other_audio"))
    moments = smoothing_windows(np.array(open_clips(talkers)[0].features("mfcc")), np.arange(130))
    found = []
    for frame in range(130):
        other = windows.window(0, frame)["other_audio"].numpy()
        (moment,) = np.flatnonzero((moments == other).all(axis=(1, 2, 3)))
        assert abs(moment - frame) >= 25
        found.append(moment)
    assert len(set(found)) > 50


def test_latents_are_those_of_frame_and_reference(talkers):
    windows = latent_windows(talkers)
    for draw in (Draw(0, 0), Draw(200, 4), Draw(389, 2)):
        window = windows[draw]
        for key, value in (
            ("z", window["frame"]),
            ("z_masked", window["frame"] + 0.5),
            ("z_reference", window["reference_frame"]),
        ):
            assert torch.equal(window[key], torch.full((3, 4, 4), float(value))), key
    assert "image" not in window and "mask" not in window


def test_missing_and_wrong_latents_are_named(talkers, tmp_path):
    clip = open_clips(talkers)[0]
    with pytest.raises(UserError, match=rf"no latents for '{clip.name}': run cache-latents .*0123abcd-mouth_safe"):
        WindowDataset([clip], TRAINING, latents=LatentCache(talkers, "ffff", "mouth_safe"))[0]
    cache = LatentCache(tmp_path, CODEC, "mouth_safe")
    cache.describe()
    np.save(cache.path(clip.name), np.zeros((2, 129, 3, 4, 4), np.float16))
    with pytest.raises(UserError, match=r"shape \(2, 129, 3, 4, 4\) for 130 frames"):
        WindowDataset([clip], TRAINING, latents=cache)[0]
    cache.path(clip.name).write_bytes(b"half a header")
    with pytest.raises(UserError, match=f"{clip.name}.npy: cannot be read"):
        WindowDataset([clip], TRAINING, latents=cache)[0]


# Processes


@pytest.mark.parametrize("images", [False, True], ids=["latents", "images"])
def test_batches_do_not_depend_on_the_workers(talkers, images):
    def windows() -> WindowDataset:
        return WindowDataset(open_clips(talkers), EVALUATION) if images else latent_windows(talkers)

    alone = loaded(windows(), workers=0, epoch=2)
    for workers in (1, 2):
        assert_equal(loaded(windows(), workers, epoch=2), alone)
    assert not torch.equal(loaded(windows(), 0, epoch=3)[0]["frame"], alone[0]["frame"])
