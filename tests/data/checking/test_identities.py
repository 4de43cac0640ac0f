"""Whose face is in a clip, on a dataset in which one person has two names, and two people have one."""

import csv

import pytest

from difftalk_pl.data.checking.identities import Pair, identities, joined
from difftalk_pl.data.clips import read_rows, write_rows
from difftalk_pl.data.media.video import read_audio, read_frames, write_video
from difftalk_pl.data.prepare import prepare
from difftalk_pl.errors import UsageError

SPANS = {"anchor": ("dfrf_cnn2", 1), "late": ("dfrf_cnn2", 41), "may": ("r3d_may", 0), "zoe": ("hdtf_aoc", 1)}


@pytest.fixture(scope="module")
def faces(real_clips, tmp_path_factory):
    """anchor and late are one person; zoe and may are said to be one."""
    root = tmp_path_factory.mktemp("faces")
    for name, (clip, start) in SPANS.items():
        path, stop = real_clips / f"{clip}.mp4", start + 1.2
        write_video(root / f"{name}.mp4", read_frames(path, 25, start, stop), 25, read_audio(path, 16000, start, stop))
    prepare([root], root / "data", size=128, min_seconds=1)
    rows = read_rows(root / "data")
    rows["zoe"] = rows["zoe"]._replace(identity="may")
    write_rows(root / "data", rows.values())
    return root / "data"


def people(root):
    return {row.name: row.identity for row in read_rows(root).values()}


def test_faces_contradict_the_names(faces, capsys):
    before = (faces / "clips.csv").read_bytes()
    identities(faces, frames=3)
    with (faces / "identities.csv").open(newline="") as file:
        found = {(row["finding"], row["first"], row["second"]): float(row["distance"]) for row in csv.DictReader(file)}
    assert set(found) == {("one person?", "anchor", "late"), ("two people?", "may", "zoe")}
    assert found["one person?", "anchor", "late"] < 0.4 and found["two people?", "may", "zoe"] > 0.6
    assert "zoe (may)" in capsys.readouterr().out
    assert (faces / "clips.csv").read_bytes() == before


def test_merging_is_asked_for_and_said(faces, capsys):
    identities(faces, merge=0.4, frames=2)
    assert "clips.csv: late is now anchor" in capsys.readouterr().out
    assert people(faces) == {"anchor": "anchor", "late": "anchor", "may": "may", "zoe": "may"}
    identities(faces, merge=0.4, frames=2)
    assert "nothing to merge" in capsys.readouterr().out


def test_a_clip_that_cannot_be_read_is_left_out(faces, caplog):
    video = faces / "clips" / "may" / "video.mp4"
    content = video.read_bytes()
    try:
        video.write_bytes(content[:2000])
        identities(faces, frames=1)
    finally:
        video.write_bytes(content)
    assert "may: left out" in caplog.text
    with pytest.raises(UsageError, match="frames=0"):
        identities(faces, frames=0)


def test_chains_of_pairs_are_one_person():
    pairs = [Pair("one person?", 0.3, "x", a, "y", b) for a, b in [("d", "c"), ("b", "a"), ("c", "b")]]
    assert joined(set("abcde"), pairs) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}
