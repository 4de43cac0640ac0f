"""Shots of films whose cuts are known, and the command that lists them."""

import json
import subprocess
import sys
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.media.video import read_frames, write_video
from difftalk_pl.data.sources.clip_list import read_clip_list
from difftalk_pl.data.sources.scenes import scenes
from difftalk_pl.data.sources.shots import THRESHOLDS, Look, find_shots
from difftalk_pl.errors import UsageError, UserError
from tests.data.sources.shot_films import Film, film

pytest.importorskip("scenedetect", reason="scenes is an extra")
ADAPTIVE = Look("adaptive", THRESHOLDS["adaptive"])
CONTENT = Look("content", THRESHOLDS["content"])


def nothing(done: int, total: int) -> None:
    assert 0 <= done <= total + 1


@pytest.fixture(scope="module")
def mixed(real_clips, tmp_path_factory) -> Film:
    """25 fps, 30 fps, a variable rate, and a shot that is too short."""
    parts = [("hdtf_aoc", 3.2), ("dfrf_french", 3.5), ("vr_1", 4), ("r3d_may", 1), ("ls_demo1", 3.4)]
    path = tmp_path_factory.mktemp("films") / "mixed.mp4"
    return film(path, [(real_clips / f"{name}.mp4", seconds) for name, seconds in parts])


@pytest.mark.parametrize("look", [ADAPTIVE, CONTENT], ids=["adaptive", "content"])
def test_cuts_are_at_the_time_of_the_new_frame(mixed, look):
    """Exactly, whatever the rate: a frame number times a duration would be off by half a second here."""
    found = find_shots(mixed.path, look, nothing)
    assert found.cuts == pytest.approx(mixed.cuts, abs=1e-4)
    assert found.end == pytest.approx(mixed.end, abs=1e-4)
    at = [mixed.times.index(cut) for cut in mixed.cuts]
    by_number = [number * mixed.end / len(mixed.times) for number in at]
    assert max(abs(one - other) for one, other in zip(by_number, mixed.cuts)) > 0.2


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_times_are_those_of_read_frames(real_clips, tmp_path, suffix):
    """Where the first frame comes late, and in a broadcast stream, whose clock starts with the encoder's delay."""
    parts = [(real_clips / "vr_1.mp4", 1.5), (real_clips / "r3d_may.mp4", 1)]
    late = film(tmp_path / f"late{suffix}", parts, start=Fraction(1, 2))
    (cut,) = find_shots(late.path, ADAPTIVE, nothing).cuts
    frames = [frame[::8, ::8].astype(int) for frame in read_frames(late.path, 100)]
    changes = [np.abs(after - before).mean() for before, after in pairwise(frames)]
    assert 0 <= (1 + int(np.argmax(changes))) / 100 - cut < 0.0101
    assert suffix == ".ts" or cut == pytest.approx(late.cuts[0], abs=1e-4)


@pytest.mark.parametrize("name", ["hdtf_aoc", "r3d_may", "vr_1", "mt_yongen"])
def test_one_shot_of_a_talking_person_is_one_shot(real_clips, name):
    assert find_shots(real_clips / f"{name}.mp4", ADAPTIVE, nothing).cuts == []


@pytest.mark.parametrize("times", [2, 4])
def test_pictures_that_are_shown_several_times_are_no_cuts(real_clips, tmp_path, times):
    """As in a file of 50 fps from a camera of 25. One true cut is among them."""
    frames = [*islice(read_frames(real_clips / "hdtf_aoc.mp4"), 0, 100, times)]
    other = [*islice(read_frames(real_clips / "r3d_may.mp4"), 0, 50, times)]
    path = tmp_path / "slow.mp4"
    write_video(path, [picture[::3, ::3] for picture in [*frames, *other] for _ in range(times)])
    assert find_shots(path, ADAPTIVE, nothing).cuts == pytest.approx([len(frames) * times / 25])


@pytest.mark.slow
def test_long_clips_and_jump_cuts(real_clips):
    """dfrf_cnn2 jumps four times before one background; its pictures show it. 50 s of dfrf_french are one shot."""
    assert find_shots(real_clips / "dfrf_cnn2.mp4", ADAPTIVE, nothing).cuts == [7.04, 28.08, 38.12, 57.16]
    assert find_shots(real_clips / "dfrf_french.mp4", ADAPTIVE, nothing).cuts == []
    assert find_shots(real_clips / "ls_demo1.mp4", ADAPTIVE, nothing).cuts == []


@pytest.fixture
def folder(mixed, real_clips, tmp_path) -> Path:
    """The film, a talk of one shot, a damaged film, one that breaks off, and text."""
    folder = tmp_path / "videos"
    (folder / "id10001").mkdir(parents=True)
    (folder / "id10001" / "mixed.mp4").symlink_to(mixed.path)
    (folder / "one.mp4").symlink_to(real_clips / "r3d_may.mp4")
    whole = mixed.path.read_bytes()
    (folder / "damaged.mp4").write_bytes(whole[: 2 * len(whole) // 3])
    (folder / "text.mp4").write_text("no video\n" * 99)
    return folder


def test_the_list_of_a_folder(folder, mixed, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    out = tmp_path / "lists" / "shots.csv"
    assert main(["scenes", str(folder), "--out", str(out), "--workers", "2"]) == 0
    said = capfd.readouterr().err
    close = "".join(said.split())  # a terminal may break lines anywhere
    assert "text.mp4:unreadable:notamediafile" in close and "damaged.mp4:breaksoffat9.6sof15.1s" in close
    assert "too short" in said and "under 3 s, 1.0 s together" in " ".join(said.split())
    pieces = {piece.name: piece for piece in read_clip_list(out)}
    assert list(pieces) == ["mixed_s000", "mixed_s001", "mixed_s002", "mixed_s004", "one_s000"]
    assert {piece.identity for piece in pieces.values()} == {"id10001", "one"}
    spans = [(pieces[f"mixed_s00{k}"].start, pieces[f"mixed_s00{k}"].stop) for k in (0, 1, 2, 4)]
    one, two, three, four = mixed.cuts
    expected = [(0, one), (one, two), (two, three), (four, None)]
    for found, true in zip(spans, expected):
        assert found == pytest.approx(true, abs=1e-4) if true[1] else found[1] is None
    assert pieces["one_s000"].is_whole


def test_a_second_run_reads_only_what_has_changed(folder, real_clips, tmp_path, capfd):
    """Other lengths and names come from memory, another detector does not; a new video is added to the old ones."""
    out = tmp_path / "shots.csv"
    for name in ("text.mp4", "damaged.mp4", "id10001/mixed.mp4"):
        (folder / name).unlink()
    scenes([folder], out)
    (memory,) = [path for path in (tmp_path / ".shots.csv.shots").iterdir() if path.name != "list.json"]
    remembered = json.loads(memory.read_text())
    memory.write_text(json.dumps({**remembered, "cuts": [3.5]}))  # so that it shows who was asked
    scenes([folder], out, min_seconds=1, identity="folder")
    assert [(piece.name, piece.start, piece.identity) for piece in read_clip_list(out)] == [
        ("one_s000", 0, "videos"),
        ("one_s001", 3.5, "videos"),
    ]
    (folder / "two.mp4").symlink_to(real_clips / "vr_1.mp4")
    scenes([folder], out)
    assert [piece.name for piece in read_clip_list(out)] == ["one_s000", "two_s000"]
    assert "1 known from before" in " ".join(capfd.readouterr().err.split())
    memory.write_text("half a fi")
    scenes([folder], out)
    assert json.loads(memory.read_text()) == remembered
    memory.write_text(json.dumps({**remembered, "cuts": [3.5]}))
    scenes([folder], out, detector="content")
    assert json.loads(memory.read_text())["cuts"] == []


def test_a_list_of_somebody_is_not_written_over(real_clips, tmp_path):
    out = tmp_path / "shots.csv"
    out.write_text("video,identity\nanna.mp4,anna\n")
    with pytest.raises(UserError, match=r"shots\.csv: has been edited, or was not written by scenes; give another"):
        scenes([real_clips / "r3d_may.mp4"], out)
    out.unlink()
    scenes([real_clips / "r3d_may.mp4"], out)
    out.write_text(out.read_text().replace("s000,r3d_may", "s000,may"))
    with pytest.raises(UserError, match="has been edited"):
        scenes([real_clips / "r3d_may.mp4"], out)
    assert read_clip_list(out)[0].identity == "may"


def test_nothing_found_is_an_error_and_no_list(folder, tmp_path, capfd):
    out = tmp_path / "shots.csv"
    assert main(["scenes", str(folder / "text.mp4"), "--out", str(out)]) == 1
    assert capfd.readouterr().err.splitlines()[-1].endswith("text.mp4: no video could be read; no list was written")
    with pytest.raises(UserError, match=r"no video has a shot of 100 s"):
        scenes([folder / "one.mp4"], out, min_seconds=100)
    assert not out.exists()


def test_wrong_usage(tmp_path):
    (tmp_path / "list.csv").touch()
    for sources, options, message in [
        ([tmp_path], {"out": tmp_path / "shots"}, "a name that ends in .csv"),
        ([tmp_path / "list.csv"], {}, "expected videos or folders of them, not a list"),
        ([tmp_path], {"threshold": 0.0}, "threshold=0"),
        ([tmp_path], {"workers": 0}, "workers=0"),
        ([tmp_path], {"min_seconds": -1.0}, "min_seconds=-1"),
    ]:
        with pytest.raises(UsageError, match=message):
            scenes(sources, **{"out": tmp_path / "shots.csv", **options})


def test_without_the_extra_the_remedy_is_named(tmp_path):
    """In a process that cannot import the library."""
    code = (
        "import sys; sys.modules['scenedetect'] = None\n"
        "from difftalk_pl.__main__ import main\n"
        f"sys.exit(main(['scenes', '.', '--out', {str(tmp_path / 'shots.csv')!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "scenes needs PySceneDetect" in ended.stderr and "pip install 'difftalk_pl[scenes]'" in ended.stderr
