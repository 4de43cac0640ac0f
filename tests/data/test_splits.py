"""Which clips train, validate and test."""

from pathlib import Path

import pytest

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError

PRESETS = Path(__file__).parents[2] / "experiments" / "data"


def clips_of(*identities: str) -> list[Clip]:
    """A clip for every mention of a person, without files: ann_0, ann_1, bob_0 …"""
    return [
        Clip(Path("nowhere"), f"{person}_{identities[:number].count(person)}", 100, person)
        for number, person in enumerate(identities)
    ]


BOTH = ["ann_0", "ann_1"]
PEOPLE = clips_of(*[f"p{number:02d}" for number in range(20)] * 2)


def names(sides: dict[str, list[Clip]]) -> dict[str, list[str]]:
    return {side: sorted(clip.name for clip in clips) for side, clips in sides.items()}


@pytest.mark.parametrize("seed", range(3))
def test_fractions_divide_people_not_clips(seed):
    sides = Split(val=0.1, test=0.25, seed=seed).apply(PEOPLE)
    people = {side: {clip.identity for clip in clips} for side, clips in sides.items()}
    assert {side: len(members) for side, members in people.items()} == {"train": 13, "val": 2, "test": 5}
    assert len(set.union(*people.values())) == 20, "nobody is on two sides"
    assert sum(map(len, sides.values())) == len(PEOPLE), "every clip has a side"
    assert names(Split(val=0.1, test=0.25, seed=seed).apply(PEOPLE[::-1])) == names(sides)
    assert names(Split(val=0.1, test=0.25, seed=9).apply(PEOPLE)) != names(sides)


def test_a_new_person_moves_nobody_from_training_to_the_test():
    for number in range(10, 40):
        before, after = (
            Split(seed=3).apply(clips_of(*(f"p{i:02d}" for i in range(count)))) for count in (number, number + 1)
        )
        assert not {clip.identity for clip in before["train"]} & {clip.identity for clip in after["test"]}


@pytest.mark.parametrize(
    "split, expected",
    [
        (
            Split(val=["ann"], test=["bob_0"]),
            {"train": ["cat_0", "dan_0"], "val": ["ann_0", "ann_1"], "test": ["bob_0"]},
        ),
        (Split(val=0.0, test=["ann_1"], train=["bob"]), {"train": ["bob_0"], "val": [], "test": ["ann_1"]}),
        (Split(val=0.0, test=["ann_1"]), {"train": ["bob_0", "cat_0", "dan_0"], "val": [], "test": ["ann_1"]}),
        (
            Split(val=["ann_0"], test=["ann_1"], share_people=True),
            {"train": ["bob_0", "cat_0", "dan_0"], "val": ["ann_0"], "test": ["ann_1"]},
        ),
    ],
    ids=["people or clips", "a list to train on", "the other clips of a tested person do not train", "shared people"],
)
def test_lists_name_clips_or_people(split, expected):
    assert names(split.apply(clips_of("ann", "ann", "bob", "cat", "dan"))) == expected


def test_files_name_one_a_line_and_may_name_clips_that_are_gone(tmp_path, caplog):
    (listed := tmp_path / "test.txt").write_text("# made by hand\nbob\n\n  cat_0  \ngone_0\n", encoding="utf-8")
    sides = Split(val=0.0, test=listed, train=["ann"]).apply(clips_of("ann", "bob", "cat", "dan"))
    assert names(sides) == {"train": ["ann_0"], "val": [], "test": ["bob_0", "cat_0"]}
    assert "1 of 3 are not in the dataset: gone_0" in caplog.text
    for split in (Split(test=["zoe", "ann"]), Split(test=listed)):
        with pytest.raises(UserError, match=r"split test: . of . are not in the dataset: .*; see its clips\.csv"):
            split.apply(clips_of("ann"))
    with pytest.raises(UserError, match=r"split val: .*none\.txt: No such file"):
        Split(val=tmp_path / "none.txt").apply(clips_of("ann"))


@pytest.mark.parametrize(
    "split", [{"val": ["ann_0"], "test": ["ann_1"]}, {"val": 0.0, "test": ["ann"], "train": ["ann_0"]}]
)
def test_a_person_on_two_sides_is_refused(split):
    with pytest.raises(UserError, match=r"split: 'ann' is in .* and in .*; move it to one side"):
        Split(**split).apply(clips_of("ann", "ann", "bob"))


@pytest.mark.parametrize("preset, shares", [("hdtf_identity", False), ("hdtf_paper100", True)])
def test_the_shipped_splits_are_read_and_name_each_clip_once(preset, shares):
    files = {side: PRESETS / preset / f"{side}.txt" for side in ("train", "val", "test")}
    listed = [line for path in files.values() for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(listed) == len(set(listed)) == 436
    given = {side: path if path.stat().st_size > 100 else 0.0 for side, path in files.items()}
    sides = Split(**given, share_people=shares).apply([Clip(Path("nowhere"), name, 100, name) for name in listed])
    assert sum(map(len, sides.values())) == 436 and all(sides[side] for side in ("train", "test"))
