"""The loaders of each stage, exact resume, and the checks of the data against the model."""

import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.datamodule import HDTFDataModule, Loading
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError
from difftalk_pl.files import write_json

CODEC = "0123abcd"  # of the fixture's latents
SPLIT = Split(val=["synthetic_001"], test=["synthetic_002"])
FRAMES = 130


def module(root: Path, stage: str, rank: int = 0, ranks: int = 1, epoch: int = 2, used: int | None = None, **options):
    """The data module after setup, as a trainer sees it that may have been interrupted after some batches."""
    given = {"loading": Loading(batch_size=8, eval_batch_size=8, workers=0), "split": SPLIT, "codec": CODEC} | options
    data = HDTFDataModule(root, **given)
    progress = SimpleNamespace(current=SimpleNamespace(ready=used and used + 1, processed=used))
    loop = SimpleNamespace(
        restarting=used is not None,
        epoch_loop=SimpleNamespace(batch_progress=progress),
        epoch_progress=SimpleNamespace(current=SimpleNamespace(started=epoch + 1)),
    )
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        current_epoch=epoch, global_rank=rank, world_size=ranks, fit_loop=loop
    )
    data.setup(stage)
    return data


def frames_of(loader) -> list[list[int]]:
    return [batch["frame"].tolist() for batch in loader]


def clip_frames(loader) -> list[tuple[str, int]]:
    windows = [batch["window"] for batch in loader if batch["window"] is not None]
    return [place for window in windows for place in zip(window["clip"], window["frame"].tolist())]


# Loaders


def test_fit_reads_training_windows_and_validates_loss_and_a_few_whole_clips(talkers):
    data = module(talkers, "fit", val_frames=10, val_clips=1, val_seconds=0.5)
    assert {clip for batch in data.train_dataloader() for clip in batch["clip"]} == {"synthetic_000"}
    loss, clips = data.val_dataloader()
    assert [frame for batch in frames_of(loss) for frame in batch] == list(range(10))
    assert {clip for batch in loss for clip in batch["clip"]} == {"synthetic_001"}
    assert clip_frames(clips) == [("synthetic_001", frame) for frame in range(12)]
    assert next(iter(clips))["window"].keys() >= {"image", "mask", "reference"}
    assert [(clip.name, frames) for clip, frames in data.evaluation_clips] == [("synthetic_001", 12)]
    assert len(module(talkers, "fit", val_clips=0).val_dataloader()) == 1
    assert module(talkers, "fit", split=Split(val=0.0, test=["synthetic_002"])).val_dataloader() == []


def test_validate_test_and_predict_read_whole_clips(talkers):
    """Also the frames of a short clip that have no reference far enough away."""
    validation = module(talkers, "validate", val_frames=9).val_dataloader()[1]
    assert clip_frames(validation) == [("synthetic_001", frame) for frame in range(9)]
    data = module(talkers, "test", min_reference_gap=100)
    batches = list(data.test_dataloader())
    assert clip_frames(batches) == [("synthetic_002", frame) for frame in range(FRAMES)]
    gaps = torch.cat([(b["window"]["frame"] - b["window"]["reference_frame"]).abs() for b in batches])
    assert FRAMES // 2 - 1 <= gaps.min() < 100 and "other_audio" in batches[0]["window"]
    predicted = module(talkers, "predict", test_frames=3).predict_dataloader()
    assert clip_frames(predicted) == [("synthetic_002", frame) for frame in range(3)]
    assert "other_audio" not in next(iter(predicted))["window"]


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_clip_belongs_to_one_rank_and_all_have_equally_many_batches(talkers, ranks, sequential):
    split = Split(val=0.0, train=[], test=[f"synthetic_00{n}" for n in range(3)])
    of_ranks = []
    for rank in range(ranks):
        data = module(
            talkers, "test", rank, ranks, split=split, contents="frames", sequential=sequential, test_frames=20
        )
        of_ranks.append(list(data.test_dataloader()))
        assert len(data.evaluation_clips) == 3
    assert len({len(batches) for batches in of_ranks}) == 1
    owners = [{name for name, _ in clip_frames(batches)} for batches in of_ranks]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 3
    everything = [place for batches in of_ranks for place in clip_frames(batches)]
    assert sorted(everything) == [(f"synthetic_00{n}", frame) for n in range(3) for frame in range(20)]
    side_by_side = len(set(of_ranks[0][0]["window"]["clip"])) > 1
    assert side_by_side == (sequential and ranks < 3)


def test_a_picture_is_the_reference_of_all_frames(talkers, tmp_path, real_clips):
    from difftalk_pl.media.video import read_frames

    Image.fromarray(next(iter(read_frames(real_clips / "hdtf_aoc.mp4", 25)))).save(tmp_path / "face.png")
    data = module(talkers, "predict", reference=f"progressive:{tmp_path / 'face.png'}", test_frames=10)
    window = next(iter(data.predict_dataloader()))["window"]
    assert (window["reference_frame"] == -1).all() and (window["reference"] == window["reference"][:1]).all()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match=r"black\.png: no face found"):
        module(talkers, "predict", reference=str(tmp_path / "black.png"))


# Resume


def test_an_interrupted_epoch_continues_with_the_next_batch(talkers):
    expected = frames_of(module(talkers, "fit").train_dataloader())
    assert len(expected) == 16 and all(one != other for one, other in pairwise(expected))
    assert frames_of(module(talkers, "fit", used=3).train_dataloader()) == expected[3:]
    assert frames_of(module(talkers, "fit", epoch=3).train_dataloader()) != expected


def test_after_the_last_batch_of_an_epoch_the_next_one_starts(talkers):
    ended, following = module(talkers, "fit", used=16), module(talkers, "fit", epoch=3)
    assert frames_of(ended.train_dataloader()) == frames_of(following.train_dataloader())


# Data and model


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"codec": "fedc9876"},
            r"no latents for 1 clips, such as synthetic_000: run cache-latents --data .* 0123abcd-m",
        ),
        ({"mask": "below_nose"}, r"no latents .* --mask below_nose .*: 0123abcd-mouth_safe\)"),
        ({"codec": None}, "the model has no autoencoder"),
        ({"audio_channels": 29}, r"mfcc has 26 channels, model.*audio_channels is 29: set it to 26"),
        ({"features": "deepspeech"}, r"2 of 2 clips have no deepspeech features .*run add-features"),
        ({"split": Split(val=0.5, test=0.5)}, r"no clip on the train side; change data\.split"),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_step(talkers, options, message):
    with pytest.raises(UserError, match=message):
        module(talkers, "fit", **options)


def test_a_checkpoint_is_refused_by_other_data_and_names_the_people_of_its_training(talkers):
    trained = module(talkers, "fit").state_dict()
    assert trained["trained_on"] == [open_clips(talkers)[0].identity] and trained["size"] == 64
    tested = module(talkers, "test")
    tested.load_state_dict(trained)
    assert tested.trained_on == trained["trained_on"]
    for key, other in (("mask", "below_nose"), ("features", "hubert"), ("size", 128)):
        with pytest.raises(UserError, match=f"trained on data with {key} {other}, not {trained[key]}"):
            tested.load_state_dict(trained | {key: other})
    module(talkers, "test", contents="frames").load_state_dict(trained | {"mask": "below_nose"})


def test_features_of_unknown_origin_are_taken_on_trust_and_others_are_refused(talkers, tmp_path):
    root, trained = shutil.copytree(talkers, tmp_path / "data"), module(talkers, "fit").state_dict()
    trained |= {"features_model": "base", "features_sha256": "aa"}
    module(talkers, "fit").load_state_dict(trained)
    write_json(root / "features.json", {"mfcc": {"name": "large", "sha256": "bb"}})
    with pytest.raises(UserError, match="features_sha256 aa, not bb"):
        module(root, "fit").load_state_dict(trained)
