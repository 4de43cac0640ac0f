"""Stretches of lips with the speech of all shifts: the right ones, every time, and nothing held out in them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, open_clips
from difftalk_pl.data.datamodule import HDTFDataModule, Loading
from difftalk_pl.data.dataset import Draw
from difftalk_pl.data.lip_sync import crop_boxes, lip_frames, sync_mfcc
from difftalk_pl.data.splits import Split
from difftalk_pl.data.sync import SyncData, SyncWindows, augment, bounds, speech
from difftalk_pl.errors import UserError

SMALL = SyncData("whole_frame", side=64, stretch=10, largest_shift=6)
WINDOWS = 10 - 4


@pytest.fixture(scope="module")
def clips(talkers):
    """Three clips of 130 frames."""
    return open_clips(talkers)


def changed(**settings) -> SyncData:
    return SyncData(**{**vars(SMALL), **settings})


@pytest.mark.parametrize("crop", ["whole_frame", "face_crop"])
def test_a_stretch_holds_its_frames_and_the_speech_around(clips, crop):
    windows = SyncWindows(clips, changed(crop=crop), fixed=True)
    sample = windows[len(windows) // 2]
    (clip,) = [clip for clip in clips if clip.name == sample["clip"]]
    first = sample["frame"]
    frames = np.stack(list(map(clip.reader().__getitem__, range(first, first + 10))))
    boxes = None if crop == "whole_frame" else crop_boxes(clip.landmarks, 64)[first : first + 10]
    assert (sample["lips"].numpy() == lip_frames(frames, boxes, 64)).all()
    whole = sync_mfcc(clip.audio(), clip.frames - 5)
    assert sample["mfcc"].shape == (WINDOWS + 12, 13, 20)
    assert (sample["mfcc"].numpy() == whole[first - 6 : first - 6 + WINDOWS + 12]).all()


@pytest.mark.parametrize(("first", "windows"), [(0, 3), (1, 30), (60, 18), (130 - 5 - 18, 18)])
def test_speech_of_a_part_is_that_of_the_clip(clips, first, windows):
    whole = sync_mfcc(clips[0].audio(), 125)
    assert (speech(clips[0], first, windows) == whole[first : first + windows]).all()


def test_a_stretch_is_a_function_of_seed_epoch_and_number(clips):
    def drawn(seed, epoch, number):
        return SyncWindows(clips, SMALL, seed=seed)[Draw(number, epoch)]

    one = drawn(1, 2, 3)
    for other in (drawn(1, 2, 3), SyncWindows(clips, SMALL, seed=1)[Draw(3, 2)]):
        assert other["frame"] == one["frame"] and torch.equal(other["lips"], one["lips"])
    assert len({(sample["frame"], int(sample["lips"].sum())) for sample in (drawn(1, e, 3) for e in range(6))}) == 6
    assert not torch.equal(drawn(2, 2, 3)["lips"], one["lips"])


def places(windows: SyncWindows, epochs: int) -> list[int]:
    """First frames of all stretches in so many epochs."""
    return [windows.where(number, epoch)[1] for number in range(len(windows)) for epoch in range(epochs)]


def test_every_stretch_has_all_its_shifts_and_none_overlaps_in_validation(clips):
    assert places(SyncWindows(clips[:1], SMALL, fixed=True), 1) == list(range(6, 130 - 6 - 10, 10))
    drawn = places(SyncWindows(clips[:1], SMALL, seed=7), 100)
    assert set(drawn) == set(range(6, 130 - 10 - 6)), "every place is reached, and no other"


def test_what_is_held_out_is_neither_seen_nor_heard_in_training(clips):
    assert bounds(130, 30.0, "first") == (0, 104) and bounds(130, 30.0, "last") == (104, 130), "a fifth at most"
    assert bounds(1000, 4.0, "first") == (0, 900) and bounds(1000, 4.0, "last") == (900, 1000)
    touched = {"first": set(), "last": set()}
    settings = changed(stretch=5, largest_shift=3, holdout_seconds=30.0)
    for part, frames in touched.items():
        for first in places(SyncWindows(clips[:1], settings, part=part), 200):
            samples = range((first - 3) * SAMPLES_PER_FRAME, 160 * (4 * (first + 3) + 19) + 400)  # steps of 25 ms
            frames |= {*range(first, first + 5), *(sample // SAMPLES_PER_FRAME for sample in samples)}
    assert (min(touched["first"]), max(touched["first"])) == (0, 103)
    assert (min(touched["last"]), max(touched["last"])) == (104, 129)
    with pytest.raises(UserError, match="of 3 given, none has 23 frames"):
        SyncWindows(clips, changed(holdout_seconds=0.8), part="last")


def test_short_clips_are_refused_by_name(clips):
    short = SimpleNamespace(name="short", frames=22, identity="x")
    windows = SyncWindows([short, clips[0], SimpleNamespace(name="enough", frames=23, identity="x")], SMALL)
    assert windows.refused == ["short"] and [clip.name for clip in windows.clips] == [clips[0].name, "enough"]
    assert len(windows) == len(SyncWindows(clips[:1], SMALL)) + 1


def test_augmentation_is_one_change_for_a_stretch():
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), 4, axis=0)
    seen = [augment(frames, None, 64, np.random.default_rng(seed)) for seed in range(8)]
    assert all((lips == lips[:1]).all() for lips in seen), "a still picture stays still"
    assert len({lips.tobytes() for lips in seen}) == 8
    ramp = np.zeros((1, 64, 64, 3), np.uint8)
    ramp[:, :, 32:] = 200
    mirrored = [
        lips[0, 0, 32, 8] > lips[0, 0, 32, 56]
        for lips in (augment(ramp, None, 64, np.random.default_rng(s)) for s in range(20))
    ]
    assert 3 < sum(mirrored) < 17


def module(root, **options):
    data = HDTFDataModule(root, contents="sync", loading=Loading(batch_size=2, eval_batch_size=2, workers=0), **options)
    loop = SimpleNamespace(restarting=False)
    data.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1, fit_loop=loop)
    return data


def test_the_data_module_opens_people_or_held_out_seconds(talkers):
    people = Split(val=["synthetic_001"], test=["synthetic_002"])
    data = module(talkers, sync=SMALL, split=people)
    data.setup("fit")
    assert data.identities("train") == ["synthetic_000"] and data.identities("val") == ["synthetic_001"]
    batch = next(iter(data.train_dataloader()))
    assert batch["lips"].shape == (2, 10, 3, 64, 64) and batch["lips"].dtype == torch.uint8
    assert batch["mfcc"].shape == (2, WINDOWS + 12, 13, 20)
    assert {clip for batch in data.val_dataloader() for clip in batch["clip"]} == {"synthetic_001"}
    held_out = changed(stretch=5, largest_shift=3, holdout_seconds=9)
    data = module(talkers, sync=held_out, split=Split(val=0.0, test=["synthetic_002"]))
    data.setup("fit")
    assert data.identities("val") == data.identities("train") == ["synthetic_000", "synthetic_001"]
    assert all(frame >= 104 for batch in data.val_dataloader() for frame in batch["frame"])


def test_the_data_module_refuses_what_is_not_meant(talkers):
    with pytest.raises(UserError, match=r"holdout_seconds 2 validates .* names 1 clips: set data\.split\.val 0"):
        module(talkers, sync=changed(holdout_seconds=2.0), split=Split(val=["synthetic_001"])).setup("fit")
    for stage in ("test", "predict"):
        with pytest.raises(UserError, match=f"{stage} is not for a SyncNet"):
            module(talkers, sync=SMALL).setup(stage)
    for wrong in ({"stretch": 4}, {"largest_shift": 0}, {"holdout_seconds": -1.0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            changed(**wrong)
