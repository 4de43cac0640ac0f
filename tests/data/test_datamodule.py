"""Who trains, validates and tests, and the loaders of their windows."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.datamodule import HDTFDataModule, Loading
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError

CODEC = "0123abcd"  # of the fixture's latents


def clips_of(*identities: str) -> list[Clip]:
    """A clip for every mention of a person, without files: ann_0, ann_1, bob_0 …"""
    return [
        Clip(Path("nowhere"), f"{person}_{identities[:number].count(person)}", 100, person)
        for number, person in enumerate(identities)
    ]


PEOPLE = clips_of(*[f"p{number:02d}" for number in range(20)] * 2)


def names(sides: dict[str, list[Clip]], side: str) -> list[str]:
    return [clip.name for clip in sides[side]]


# Splits


@pytest.mark.parametrize("seed", range(5))
def test_fractions_divide_people_not_clips(seed):
    sides = Split(val=0.1, test=0.25, seed=seed).apply(PEOPLE)
    people = {side: {clip.identity for clip in clips} for side, clips in sides.items()}
    assert {side: len(members) for side, members in people.items()} == {"train": 13, "val": 2, "test": 5}
    assert sum(len(clips) for clips in sides.values()) == len(PEOPLE), "every clip has a side"
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not people[one] & people[other]


def test_fractions_depend_on_the_seed_alone():
    assert Split(seed=1).apply(PEOPLE) == Split(seed=1).apply(PEOPLE)
    backwards = Split(seed=1).apply(PEOPLE[::-1])
    for side, clips in Split(seed=1).apply(PEOPLE).items():
        assert sorted(names(backwards, side)) == sorted(clip.name for clip in clips)
    chosen = {tuple(names(Split(seed=seed).apply(PEOPLE), "test")) for seed in range(10)}
    assert len(chosen) > 3


def test_a_fraction_takes_at_least_one_person_and_none_only_if_asked():
    sides = Split(val=0.01, test=0.01).apply(clips_of("a", "b", "c"))
    assert [len(sides[side]) for side in ("train", "val", "test")] == [1, 1, 1]
    sides = Split(val=0.0, test=0.0).apply(clips_of("a", "b", "c"))
    assert [len(sides[side]) for side in ("train", "val", "test")] == [3, 0, 0]


def test_lists_name_clips_or_people():
    clips = clips_of("ann", "ann", "bob", "cat", "dan")
    sides = Split(val=["ann"], test=["bob_0"]).apply(clips)
    assert names(sides, "val") == ["ann_0", "ann_1"]
    assert names(sides, "test") == ["bob_0"]
    assert names(sides, "train") == ["cat_0", "dan_0"]


def test_the_clips_that_a_list_leaves_out_do_not_train():
    """Of a person who is tested with one clip, the other must not be trained on."""
    sides = Split(val=0.0, test=["ann_1"]).apply(clips_of("ann", "ann", "bob"))
    assert names(sides, "train") == ["bob_0"] and names(sides, "test") == ["ann_1"]


def test_files_name_one_a_line(tmp_path):
    listed = tmp_path / "test.txt"
    listed.write_text("bob\n\n  cat_0  \n", encoding="utf-8")
    sides = Split(val=0.0, test=listed, train=["ann"]).apply(clips_of("ann", "bob", "cat", "dan"))
    assert (names(sides, "test"), names(sides, "train")) == (["bob_0", "cat_0"], ["ann_0"])


def test_a_fraction_beside_lists_takes_from_the_rest():
    sides = Split(val=0.25, test=["a"], train=["b", "c"]).apply(clips_of("a", "b", "c", "d"))
    assert names(sides, "val") == ["d_0"] and names(sides, "train") == ["b_0", "c_0"]


def test_unknown_names_are_told():
    with pytest.raises(UserError, match=r"split test: not in the dataset: dave, zoe; see its clips\.csv"):
        Split(test=["zoe", "ann", "dave"]).apply(clips_of("ann"))


def test_a_list_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"split val: .*none\.txt: No such file"):
        Split(val=tmp_path / "none.txt").apply(clips_of("ann"))


@pytest.mark.parametrize(
    "split", [{"val": ["ann_0"], "test": ["ann_1"]}, {"val": 0.0, "test": ["ann"], "train": ["ann_0"]}]
)
def test_a_person_on_two_sides_is_refused(split):
    with pytest.raises(UserError, match=r"split: 'ann' is in .* and in .*; move it to one side"):
        Split(**split).apply(clips_of("ann", "ann", "bob"))


# Loaders

SPLIT = Split(val=["synthetic_001"], test=["synthetic_002"])


def module(root: Path, codec: str = CODEC, rank: int = 0, ranks: int = 1, restart: int | None = None, **options):
    """The data module as a trainer in epoch 2 sees it, which may have been interrupted after some batches."""
    options = {"loading": Loading(batch_size=8, eval_batch_size=8, workers=0), "split": SPLIT} | options
    data = HDTFDataModule(root, **options)
    cut_short = None if restart is None else restart + 1  # the batch that was under way
    progress = SimpleNamespace(current=SimpleNamespace(ready=cut_short, processed=restart))
    loop = SimpleNamespace(
        restarting=restart is not None,
        epoch_loop=SimpleNamespace(batch_progress=progress),
        epoch_progress=SimpleNamespace(current=SimpleNamespace(started=3)),
    )
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=SimpleNamespace(codec=SimpleNamespace(hash=codec)),
        current_epoch=2,
        global_rank=rank,
        world_size=ranks,
        fit_loop=loop,
    )
    return data


def test_every_side_reads_its_own_people(talkers):
    data = module(talkers, val_frames=10)
    data.setup("fit")
    assert {clip for batch in data.train_dataloader() for clip in batch["clip"]} == {"synthetic_000"}
    val = list(data.val_dataloader())
    assert {clip for batch in val for clip in batch["clip"]} == {"synthetic_001"}
    assert torch.cat([batch["frame"] for batch in val]).tolist() == list(range(10))
    data = module(talkers, test_frames=3)
    data.setup("test")
    windows = data.evaluation("test", control=True)
    (batch,) = data.evaluation_loader(windows, windows.indices(0))
    assert set(batch["clip"]) == {"synthetic_002"} and {"mask", "other_audio", "all_landmarks"} <= batch.keys()
    assert data.frame_size == 64


def test_an_evaluation_takes_every_frame_of_a_clip_in_order(talkers):
    """Also those of a short clip that have no reference far enough away."""
    frames = next(clip.frames for clip in open_clips(talkers) if clip.name == "synthetic_002")
    data = module(talkers, min_reference_gap=frames * 3 // 4)
    data.setup("test")
    windows = data.evaluation("test")
    places = windows.indices(0)
    rows = [windows[place] for place in places]
    assert [row["frame"] for row in rows] == list(range(frames))
    gaps = [abs(row["frame"] - row["reference_frame"]) for row in rows]
    assert frames // 2 - 1 <= min(gaps) < frames * 3 // 4 and "other_audio" not in rows[0] and "image" in rows[0]
    assert len(data.evaluation("test", frames=5).indices(0)) == 5
    assert [clip.name for clip in data.evaluation("test", clips=1).clips] == [windows.clips[0].name]


@pytest.mark.parametrize(("clips", "world"), [(7, 1), (7, 2), (7, 3), (1, 4), (4, 4)])
def test_every_clip_belongs_to_one_process(talkers, clips, world):
    windows = SimpleNamespace(clips=[None] * clips)
    owned = []
    for rank in range(world):
        data = module(talkers)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
        owned += [*data.own_clips(windows)]  # type: ignore[arg-type]
    assert sorted(owned) == list(range(clips))


def test_fewer_windows_than_processes_are_refused(talkers):
    data = module(talkers, val_frames=1)
    data.setup("fit")
    data.trainer = SimpleNamespace(global_rank=0, world_size=8)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"val: 1 windows for 8 processes.*val_frames"):
        data.val_dataloader()


@pytest.mark.parametrize(
    "contents, there, not_there",
    [("frames", {"image"}, {"audio", "z"}), ("latents", {"z", "audio"}, {"image"}), ("images", {"masked"}, {"z"})],
)
def test_contents(talkers, contents, there, not_there):
    data = module(talkers, contents=contents)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert there <= batch.keys() and not not_there & batch.keys()


def test_the_mask_reaches_the_windows(talkers):
    data = module(talkers, contents="images", mask="below_nose")
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert (batch["masked"][:, :, -8:] == 0).all()


def frames_of(loader) -> list[list[int]]:
    return [batch["frame"].tolist() for batch in loader]


def test_an_interrupted_epoch_goes_on_with_the_next_batch(talkers):
    whole, rest = module(talkers), module(talkers, restart=3)
    for data in (whole, rest):
        data.setup("fit")
    expected = frames_of(whole.train_dataloader())
    assert len(expected) == 16 and all(one != other for one, other in pairwise(expected))
    assert frames_of(rest.train_dataloader()) == expected[3:]


def test_after_an_epochs_last_batch_the_next_epoch_starts(talkers):
    following, ended = module(talkers), module(talkers, restart=16)
    following.trainer.current_epoch = 3
    for data in (following, ended):
        data.setup("fit")
    assert frames_of(ended.train_dataloader()) == frames_of(following.train_dataloader())


def test_an_autoencoder_does_not_predict(talkers):
    with pytest.raises(UserError, match="predict needs a diffusion model"):
        module(talkers, contents="frames").setup("predict")


def test_ranks_train_and_validate_on_different_frames(talkers):
    trained, validated = [], []
    for rank in range(2):
        data = module(talkers, rank=rank, ranks=2)
        data.setup("fit")
        trained.append([frame for batch in frames_of(data.train_dataloader()) for frame in batch])
        validated.append([frame for batch in frames_of(data.val_dataloader()) for frame in batch])
    assert not set(trained[0]) & set(trained[1])
    assert sorted(validated[0] + validated[1]) == list(range(130))


def test_validation_is_the_same_every_time_training_is_not(talkers):
    data = module(talkers)
    data.setup("fit")
    first, second = ([batch["reference_frame"].tolist() for batch in data.val_dataloader()] for _ in range(2))
    assert first == second
    epochs = []
    for epoch in (0, 1):
        data.trainer.current_epoch = epoch
        epochs.append(frames_of(data.train_dataloader()))
    assert epochs[0] != epochs[1]


def test_missing_latents_name_clips_remedy_and_what_there_is(talkers):
    with pytest.raises(UserError) as raised:
        module(talkers, codec="fedc9876").setup("fit")
    message = str(raised.value)
    assert "no latents for 1 clips (synthetic_000)" in message
    assert f"run cache-latents --data {talkers} --mask mouth_safe" in message and "fedc9876" in message
    assert "latents of another autoencoder or mask: 0123abcd-mouth_safe" in message


def test_latents_of_another_mask_are_not_taken(talkers):
    with pytest.raises(UserError, match=r"0123abcd-below_nose: no latents .*: 0123abcd-mouth_safe\)"):
        module(talkers, mask="below_nose").setup("fit")


def test_many_missing_latents_are_counted(tmp_path):
    with pytest.raises(UserError, match=r"no latents for 20 clips \(p00_0, p01_0, p02_0 …\); run cache-latents"):
        LatentCache(tmp_path, CODEC, "mouth_safe").check(PEOPLE[:20])


def test_latents_without_an_autoencoder_are_refused(talkers):
    data = module(talkers)
    data.trainer.lightning_module.codec = None
    with pytest.raises(UserError, match="the model has no autoencoder"):
        data.setup("fit")


def test_a_side_without_clips_is_refused(talkers):
    data = HDTFDataModule(talkers, contents="frames", split=Split(val=0.5, test=0.5))
    with pytest.raises(UserError, match=r"no clip on the train side; change data\.split"):
        data.setup("fit")


def test_a_new_clip_moves_nobody_from_training_to_the_test():
    """Datasets grow; who was trained on must not be tested on afterwards because somebody joined."""

    def sides(number):
        return Split(seed=3).apply([Clip(Path("root"), f"p{i:02d}", 200, f"p{i:02d}") for i in range(number)])

    for number in range(10, 40):
        before, after = sides(number), sides(number + 1)
        trained = {clip.identity for clip in before["train"]}
        assert not trained & {clip.identity for clip in after["test"]}
