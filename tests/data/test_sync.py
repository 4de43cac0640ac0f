"""The inputs of SyncNet: crops by the published formula, windows of speech, and the stretches that it trains on."""

import numpy as np
import pytest
import torch
from python_speech_features import mfcc

from difftalk_pl.data.clips import SAMPLES_PER_FRAME, open_clips
from difftalk_pl.data.datamodule import HDTFDataModule, Loading
from difftalk_pl.data.sampler import Draw
from difftalk_pl.data.splits import Split
from difftalk_pl.data.sync import (
    SyncData,
    SyncWindows,
    augment,
    bounds,
    crop_boxes,
    lip_frames,
    sync_mfcc,
    sync_windows,
)
from difftalk_pl.errors import UserError
from difftalk_pl.faces.detect import box_of

RANDOM = np.random.default_rng(0)
SIZE = 200
SMALL = SyncData("whole_frame", side=64, stretch=10, largest_shift=6)
WINDOWS = 10 - 4


@pytest.fixture(scope="module")
def clips(talkers):
    """Three clips of 130 frames."""
    return open_clips(talkers)


# Crops


def faces(frames: int) -> np.ndarray:
    """Landmarks that wander: (T, 68, 2), fractions."""
    shape = RANDOM.uniform(-0.15, 0.15, (68, 2))
    return 0.5 + shape + RANDOM.normal(0, 0.01, (frames, 1, 2)) + RANDOM.normal(0, 0.002, (frames, 68, 2))


def published_slices(boxes: np.ndarray, cs: float = 0.40) -> list[tuple[int, int, int, int]]:
    """Rows and columns of the padded frame that run_pipeline.py cuts, less the padding; boxes x1, y1, x2, y2."""

    def median(values: list[float], at: int) -> float:
        return sorted(values[k] if 0 <= k < len(values) else 0.0 for k in range(at - 6, at + 7))[6]

    s = [max(y2 - y1, x2 - x1) / 2 for x1, y1, x2, y2 in boxes]
    y, x = [(y1 + y2) / 2 for _, y1, _, y2 in boxes], [(x1 + x2) / 2 for x1, _, x2, _ in boxes]
    cuts = []
    for frame in range(len(boxes)):
        bs = median(s, frame)
        bsi = int(bs * (1 + 2 * cs))
        my, mx = median(y, frame) + bsi, median(x, frame) + bsi
        rows = int(my - bs), int(my + bs * (1 + 2 * cs))
        columns = int(mx - bs * (1 + cs)), int(mx + bs * (1 + cs))
        cuts.append((columns[0] - bsi, rows[0] - bsi, columns[1] - bsi, rows[1] - bsi))
    return cuts


def test_boxes_are_the_published_ones():
    points = faces(30)
    boxes = [tuple(map(float, box_of(one * SIZE))) for one in points]
    ours = crop_boxes(points, SIZE)
    assert ours.shape == (30, 4) and ours.dtype == int
    assert [tuple(box) for box in ours.tolist()] == published_slices(boxes)


@pytest.mark.parametrize("box", [(10, 20, 90, 100), (-30, -10, 70, 90), (60, 50, 160, 150), (-20, -20, 120, 120)])
def test_a_crop_is_what_padding_with_grey_first_gives(box):
    frames = RANDOM.integers(0, 256, (2, 100, 100, 3), dtype=np.uint8)
    padded = np.pad(frames, ((0, 0), (80, 80), (80, 80), (0, 0)), constant_values=110)
    left, top, right, bottom = (edge + 80 for edge in box)
    cut = np.ascontiguousarray(padded[:, top:bottom, left:right])
    assert (lip_frames(frames, np.array([box, box]), 64) == lip_frames(cut, None, 64)).all()


# Speech


def sound(samples):
    return np.random.default_rng(samples).integers(-8000, 8000, samples).astype(np.int16)


@pytest.mark.parametrize("samples", [3840, 3840 + 639, 40 * 640, 40 * 640 + 1])
def test_a_window_holds_the_steps_of_its_frames(samples):
    count = sync_windows(1000, samples)
    windows = sync_mfcc(sound(samples), count)
    assert windows.shape == (count, 13, 20) and windows.dtype == np.float32
    whole = mfcc(sound(samples), 16000)
    for v in range(count):
        np.testing.assert_allclose(windows[v], whole[4 * v : 4 * v + 20].T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("frames", "samples"), [(5, 10**6), (100, 6 * 640 - 1), (0, 0)])
def test_too_short_clips_are_named(frames, samples):
    with pytest.raises(UserError, match=rf"^{frames} frames and .* at least 6 frames \(0\.24 s\) of both$"):
        sync_windows(frames, samples)


# Stretches


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


def module(root, stage: str, **options) -> HDTFDataModule:
    data = HDTFDataModule(root, contents="sync", loading=Loading(batch_size=2, eval_batch_size=2, workers=0), **options)
    data.setup(stage)
    return data


def test_the_data_module_validates_on_other_people_or_on_held_out_seconds(talkers):
    data = module(talkers, "fit", sync=SMALL, split=Split(val=["synthetic_001"], test=["synthetic_002"]))
    batch = next(iter(data.train_dataloader()))
    assert batch["lips"].shape == (2, 10, 3, 64, 64) and batch["lips"].dtype == torch.uint8
    assert batch["mfcc"].shape == (2, WINDOWS + 12, 13, 20)
    assert set(batch["clip"]) == {"synthetic_000"}
    (loss,) = data.val_dataloader()
    assert {clip for batch in loss for clip in batch["clip"]} == {"synthetic_001"}
    held_out = changed(stretch=5, largest_shift=3, holdout_seconds=9)
    data = module(talkers, "fit", sync=held_out, split=Split(val=0.0, test=["synthetic_002"]))
    (loss,) = data.val_dataloader()
    data.setup("validate")
    assert {clip for batch in loss for clip in batch["clip"]} == {"synthetic_000", "synthetic_001"}
    assert all(frame >= 104 for batch in loss for frame in batch["frame"])


def test_the_data_module_refuses_other_stages_and_other_crops(talkers):
    split = Split(val=["synthetic_001"])
    with pytest.raises(UserError, match=r"holdout_seconds .* set data\.split\.val 0"):
        module(talkers, "fit", sync=changed(holdout_seconds=2.0), split=split)
    with pytest.raises(UserError, match="test is not for a SyncNet"):
        module(talkers, "test", sync=SMALL)
    data = module(talkers, "fit", sync=SMALL, split=split)
    with pytest.raises(UserError, match="sync_crop face_crop, not whole_frame"):
        data.load_state_dict(data.state_dict() | {"sync_crop": "face_crop"})
