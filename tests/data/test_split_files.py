"""Splits that are written, published and read again; HDTF's own tables where they are there."""

import json
import logging
from itertools import chain

import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.sources import ClipSource, person_of, write_clip_list
from difftalk_pl.data.split_files import Entry, by_identity, read_entries, split
from difftalk_pl.data.splits import Split, rank
from difftalk_pl.errors import UsageError, UserError
from tests.conftest import PROJECT, SHARED, _there
from tests.data.hdtf_tables import write_tables

SIDES = ("train", "val", "test")


@pytest.fixture(scope="module")
def tables():
    return _there(SHARED / "hdtf_annotations")


def lists(folder):
    lines = {side: (folder / f"{side}.txt").read_text().splitlines() for side in SIDES}
    return {side: [line for line in some if not line.startswith("#")] for side, some in lines.items()}


def clips_of(entries, tmp_path):
    return [Clip(tmp_path, entry.name, 100, entry.identity) for entry in entries]


def test_who_is_who():
    assert {person_of("WRA", f"AdamKinzinger{n}") for n in ("0", "1", "2", "")} == {"AdamKinzinger"}
    assert person_of("WDA", "WhipJimClyburn") == person_of("WDA", "JamesClyburn1")  # one video
    assert person_of("RD", "Radio1") != person_of("RD", "Radio11")
    assert person_of("WRA", "007") == "007"


def test_people_of_the_tables(tables):
    people = {}
    for entry in read_entries(tables):
        people.setdefault(entry.identity, set()).add(entry.source)
    assert len(people) == 275
    assert all(len(sources) == 1 for sources in people.values())


def test_nobody_is_on_two_sides_and_every_source_on_all(tables, tmp_path):
    split(tables, "identity", tmp_path, seed=3)
    entries, sides = {entry.name: entry for entry in read_entries(tables)}, lists(tmp_path)
    assert sorted(chain(*sides.values())) == sorted(entries) and len(entries) == 436
    people = {side: {entries[name].identity for name in names} for side, names in sides.items()}
    assert not people["train"] & people["test"] and not people["train"] & people["val"] | people["val"] & people["test"]
    for source in ("RD", "WDA", "WRA"):
        of = {side: {e.identity for n in sides[side] if (e := entries[n]).source == source} for side in SIDES}
        together = sum(map(len, of.values()))
        assert abs(len(of["test"]) - together / 10) <= 1 and abs(len(of["val"]) - together / 10) <= 1
    counts = json.loads((tmp_path / "split.json").read_text())
    seconds = sum(sum(side["seconds"].values()) for side in counts["sides"].values())
    assert seconds / 3600 == pytest.approx(17.07, abs=0.01)
    clips = clips_of(entries.values(), tmp_path)
    again = Split(**{side: tmp_path / f"{side}.txt" for side in SIDES}).apply(clips)
    assert {side: sorted(clip.name for clip in some) for side, some in again.items()} == sides


def test_videos_that_are_gone_move_hardly_anybody(tables):
    entries = read_entries(tables)
    left = [entry for entry in entries if int(rank(1, entry.identity), 16) % 5]
    before, after = (by_identity(some, 0, 0.1, 0.1) for some in (entries, left))
    where = {entry.name: side for side, some in before.items() for entry in some}
    moved = [entry for side, some in after.items() for entry in some if where[entry.name] != side]
    assert len(moved) < 0.1 * len(left)


def test_the_papers_split(tables, tmp_path, caplog):
    split(tables, "paper100", tmp_path)
    sides, entries = lists(tmp_path), read_entries(tables)
    video = {entry.name: entry.video for entry in entries}
    assert len({video[name] for name in sides["train"]}) == 100 and sides["val"] == []
    assert not {video[name] for name in sides["train"]} & {video[name] for name in sides["test"]}
    given = {side: tmp_path / f"{side}.txt" for side in SIDES}
    clips = clips_of(entries, tmp_path)
    with pytest.raises(UserError, match="is in train and in test"):
        Split(**given).apply(clips)
    with caplog.at_level(logging.WARNING):
        sides = Split(**given, share_people=True).apply(clips)
    assert len(sides["train"]) + len(sides["test"]) == 436 and "people are on two sides" in caplog.text
    with pytest.raises(UserError, match=r"'RD_Radio1_000' is in train and in val"):
        Split(["RD_Radio1_000"], 0, ["RD_Radio1_000"], share_people=True).apply(clips)


@pytest.mark.parametrize("rule", ["identity", "paper100"])
def test_the_published_files_are_what_the_command_makes(tables, tmp_path, rule):
    split(tables, rule, tmp_path)
    published = PROJECT / "experiments" / "data" / f"hdtf_{rule}"
    assert lists(published) == lists(tmp_path)
    assert (published / "split.json").read_text() == (tmp_path / "split.json").read_text()


def test_the_seed_decides():
    entries = [Entry(f"p{n}_0", f"p{n}", 1) for n in range(40)]
    one, same, other = (by_identity(entries, seed, 0.1, 0.2) for seed in (0, 0, 1))
    assert one == same != other
    assert [len(one[side]) for side in SIDES] == [28, 4, 8]


def test_of_datasets_and_lists(prepared, tmp_path):
    split(prepared, "identity", tmp_path / "a", val=0.25, test=0.25)
    assert [len(names) for names in lists(tmp_path / "a").values()] == [2, 1, 1]
    pieces = [ClipSource(f"clip{n}", tmp_path / "v.mp4", n, n + 2, f"p{n // 2}") for n in range(8)]
    write_clip_list(tmp_path / "list.csv", pieces)
    split(tmp_path / "list.csv", "identity", tmp_path / "b", val=0, test=0.25)
    counts = json.loads((tmp_path / "b" / "split.json").read_text())["sides"]
    assert [counts[side]["seconds"].get("other", 0) for side in SIDES] == [12, 0, 4]
    assert sum(map(len, lists(tmp_path / "b").values()), 0) == 8


def test_what_cannot_be_divided(prepared, tmp_path):
    with pytest.raises(UserError, match="4 videos, more than 100"):
        split(prepared, "paper100", tmp_path)
    with pytest.raises(UserError, match="too few people for test"):
        split(prepared, "identity", tmp_path)
    with pytest.raises(UsageError, match="leave some for training"):
        split(prepared, "identity", tmp_path, val=0.5, test=0.5)
    with pytest.raises(UserError, match="expected a prepared dataset"):
        split(tmp_path, "identity", tmp_path)
    odd = [ClipSource(name, tmp_path / "v.mp4", 0, 2, name) for name in ("ann", "ben", "#1 talk")]
    write_clip_list(tmp_path / "odd.csv", odd)
    with pytest.raises(UserError, match="clip '#1 talk' cannot be listed"):
        split(tmp_path / "odd.csv", "identity", tmp_path / "odd", val=0.3, test=0.3)
    (tmp_path / "train.txt").write_text("of somebody else\n")
    with pytest.raises(UserError, match=r"train\.txt is there already"):
        split(prepared, "identity", tmp_path, val=0.25, test=0.25)
    assert (tmp_path / "train.txt").read_text() == "of somebody else\n" and not (tmp_path / "val.txt").exists()


def test_lists_of_others(prepared, tmp_path, caplog):
    """A file may name clips that are gone; a list in the configuration may not."""
    names = sorted(clip.name for clip in open_clips(prepared))
    (tmp_path / "test.txt").write_text(f"# published\n\n{names[0]}\ngone_000\ngone_001\n")
    with caplog.at_level(logging.WARNING):
        sides = Split(0, tmp_path / "test.txt").apply(open_clips(prepared))
    assert [clip.name for clip in sides["test"]] == names[:1] and len(sides["train"]) == 3
    assert "2 of 3 are not in the dataset: gone_000, gone_001" in caplog.text
    with pytest.raises(UserError, match="not in the dataset: gone_000"):
        Split(0, [names[0], "gone_000"]).apply(open_clips(prepared))
    (tmp_path / "test.txt").write_text("gone_000\n")
    with pytest.raises(UserError, match=r"test\.txt: none of its 1 clips"):
        Split(0, tmp_path / "test.txt").apply(open_clips(prepared))


def test_of_tables(tmp_path):
    tables = write_tables(tmp_path / "t", {f"WDA/P{'abcdefghijkl'[n]}": {"times": ["00:01-00:11"]} for n in range(12)})
    split(tables, "identity", tmp_path / "s")
    assert [len(names) for names in lists(tmp_path / "s").values()] == [10, 1, 1]
