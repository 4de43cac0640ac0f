"""Cutting stand-ins of HDTF's videos, which are real clips under names of the tables."""

import csv
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from difftalk_pl.data.files.claims import Claims
from difftalk_pl.data.hdtf.clip import CutJob, recorded, run_cut
from difftalk_pl.data.hdtf.cut import hdtf_cut
from difftalk_pl.data.hdtf.files import is_whole
from difftalk_pl.data.hdtf.tables import read_annotations
from difftalk_pl.data.sources.clip_list import read_clip_list
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import face_size
from difftalk_pl.faces.track import track_faces
from difftalk_pl.media.audio import read_audio
from difftalk_pl.media.video import probe, read_frames
from tests.data.hdtf.hdtf_stand_in import write_tables

LONG = {  # dfrf_cnn2, 512 x 512, 71.2 s
    "times": ["00:20-00:22", "00:31-00:33", "01:10-01:12"],
    "lines": 512,
    "windows": {0: "40 440 30 440", 1: "300 200 0 200"},
    "ratios": {0: 1.2, 1: 1.0},
}
TALL = {"times": ["00:02-00:04"], "lines": 540, "windows": {0: "150 290 210 290"}, "ratios": {0: 1.2}}  # at half size


@pytest.fixture(scope="module")
def cut(real_clips, tmp_path_factory):
    """What a run made of two videos that are there, one that is damaged and one that is not there."""
    root = tmp_path_factory.mktemp("hdtf")
    tables = write_tables(
        root / "tables",
        {
            "WRA/AnnaLong2": LONG,
            "WDA/TallMan": {**TALL, "lines": 960},
            "RD/Radio1": {"times": ["00:00-00:02", "00:03-00:05"]},
            "RD/Radio2": {"times": ["00:00-00:03"]},
            "WDA/TooShort": {"times": ["00:02-00:04", "00:30-00:40"]},
        },
    )
    videos = root / "videos"
    videos.mkdir()
    for name, clip in {"AnnaLong2": "dfrf_cnn2", "TallMan": "ls_demo1", "TooShort": "r3d_may"}.items():
        shutil.copy(real_clips / f"{clip}.mp4", videos / f"{name}.mp4")
    content = (real_clips / "hdtf_aoc.mp4").read_bytes()
    (videos / "Radio1.mp4").write_bytes(content[: len(content) // 3])
    hdtf_cut(tables, videos, root / "out", workers=2, size=None)
    return root


def rows(root):
    with (root / "out" / "cut.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2))


def test_the_published_window_at_its_resolution(cut, real_clips):
    """Pixels, moments and sound are those of the video."""
    path = cut / "out" / "WRA_AnnaLong2_000.mp4"
    frames = list(read_frames(path))
    expected = [frame[30:470, 40:480] for frame in read_frames(real_clips / "dfrf_cnn2.mp4", 25, 20, 22)]
    assert len(frames) == 50 and probe(path)[:3] == (440, 440, 25.0)
    assert min(map(psnr, frames, expected)) > 38
    assert psnr(frames[10], expected[10]) > psnr(frames[10], expected[11]) + 3
    sound, there = read_audio(path, 44100), read_audio(real_clips / "dfrf_cnn2.mp4", 44100, 20, 22)
    assert np.corrcoef(sound[2000:80_000], there[2000:80_000])[0, 1] > 0.98
    assert recorded(path)["how"] == "window"


def test_a_window_of_another_resolution_is_scaled(cut, real_clips):
    row = rows(cut)["WDA_TallMan_000"]
    assert (row["crop"], row["x"], row["y"], row["side"]) == ("scaled", "300", "420", "580")
    frame = next(read_frames(cut / "out" / "WDA_TallMan_000.mp4"))
    expected = next(read_frames(real_clips / "ls_demo1.mp4", 25, 2))[420:1000, 300:880]
    assert psnr(frame, expected) > 38


def test_a_window_that_does_not_hold_the_face(cut):
    """Nor one that is not there: a square about the face, and the reason."""
    there = rows(cut)
    assert "published window" in there["WRA_AnnaLong2_001"]["reason"]
    assert "no window" in there["WRA_AnnaLong2_002"]["reason"]
    for name in ("WRA_AnnaLong2_001", "WRA_AnnaLong2_002"):
        assert there[name]["crop"] == "landmarks"
        path = cut / "out" / f"{name}.mp4"
        seen = track_faces(read_frames(path, 5), detect_every=1)
        assert seen.found.all() and 1.5 < probe(path).width / face_size(seen.landmarks) < 2.8


def test_what_cannot_be_cut_ends_nothing_else(cut):
    there = rows(cut)
    assert len(there) == 9
    assert there["RD_Radio1_000"]["status"] == "refused" and there["RD_Radio1_001"]["status"] == "refused"
    assert there["RD_Radio2_000"]["status"] == "missing"
    assert there["WDA_TooShort_000"]["status"] == "ok"
    assert "ends before that" in there["WDA_TooShort_001"]["reason"]
    assert there["WRA_AnnaLong2_002"]["frames"] == "29"  # 71.16 s of 72
    assert "0.8 s shorter" in there["WRA_AnnaLong2_002"]["reason"]


def test_the_list_for_prepare(cut):
    pieces = {piece.name: piece for piece in read_clip_list(cut / "out" / "clips.csv")}
    assert set(pieces) == {name for name, row in rows(cut).items() if row["status"] == "ok"}
    assert pieces["WRA_AnnaLong2_001"].identity == "AnnaLong"
    assert all(piece.video.exists() and piece.is_whole for piece in pieces.values())


def test_the_second_run_cuts_what_has_changed(cut, real_clips, tmp_path, capsys):
    root = shutil.copytree(cut, tmp_path / "again")
    paths = sorted((root / "out").glob("*.mp4"))
    times = {path: path.stat().st_mtime_ns for path in paths}
    run = {"annotations": root / "tables", "folder": root / "videos", "out": root / "out", "size": None}
    hdtf_cut(**run)
    assert {path: path.stat().st_mtime_ns for path in paths} == times
    assert "5 kept" in capsys.readouterr().out
    shutil.copy(real_clips / "hdtf_aoc.mp4", root / "videos" / "Radio1.mp4")  # fetched again
    (root / "videos" / "TallMan.mp4").unlink()  # not needed any more
    hdtf_cut(**run)
    assert "2 cut" in (told := capsys.readouterr().out) and "4 kept" in told
    assert {path: path.stat().st_mtime_ns for path in paths} == times
    assert rows(root)["RD_Radio1_001"]["crop"] == "landmarks" and rows(root)["WDA_TallMan_000"]["status"] == "ok"


def test_files_of_others_are_left_alone(cut, real_clips, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(real_clips / "r3d_may.mp4", out / "WRA_AnnaLong2_000.mp4")
    before = (out / "WRA_AnnaLong2_000.mp4").read_bytes()
    run = partial(hdtf_cut, cut / "tables", cut / "videos", out, size=64, only=["AnnaLong2"])
    with pytest.raises(UserError, match=r"1 clips are not done.*WRA_AnnaLong2_000"):
        run()
    assert (out / "WRA_AnnaLong2_000.mp4").read_bytes() == before
    assert len(list(out.glob("*.mp4"))) == 3
    (out / "WRA_AnnaLong2_000.mp4").unlink()
    run()
    assert recorded(out / "WRA_AnnaLong2_000.mp4") is not None


def test_clips_that_were_damaged_are_cut_again(cut, tmp_path):
    """One empty, as a power cut leaves it, one without its end."""
    run = partial(hdtf_cut, cut / "tables", cut / "videos", tmp_path / "out", size=64, only=["AnnaLong2"])
    run()
    paths = [tmp_path / "out" / f"WRA_AnnaLong2_00{number}.mp4" for number in range(2)]
    sizes = [path.stat().st_size for path in paths]
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:-2000])
    run()
    assert all(map(is_whole, paths)) and [path.stat().st_size for path in paths] == sizes


def test_two_files_for_one_video_cost_that_video_alone(cut, real_clips, tmp_path):
    root = shutil.copytree(cut, tmp_path / "again", ignore=shutil.ignore_patterns("out"))
    shutil.copy(root / "videos" / "TallMan.mp4", root / "videos" / "TallMan.mkv")
    run = partial(hdtf_cut, root / "tables", root / "videos", root / "out", size=64)
    with pytest.raises(UserError, match=r"1 clips are not done .WDA_TallMan_000."):
        run(only=["AnnaLong2", "TallMan"])
    assert len(list((root / "out").glob("WRA_AnnaLong2_*.mp4"))) == 3
    assert "keep one of them" in rows(root)["WDA_TallMan_000"]["reason"]


def test_a_video_that_goes_meanwhile_is_named(cut, tmp_path):
    clip = read_annotations(cut / "tables")[0].clips[0]
    job = CutJob(clip, None, tmp_path / "gone.mp4", tmp_path, 64)
    done = run_cut(Claims(tmp_path / "claims"), job, lambda *_: None)
    assert done.action == "failed" and "gone.mp4: No such file" in done.row.reason


def test_clips_that_came_ready_cut(real_clips, tmp_path):
    tables = write_tables(tmp_path / "tables", {"RD/Radio1": {"times": ["00:10-00:15", "00:20-00:25"]}})
    (tmp_path / "videos" / "clips").mkdir(parents=True)
    shutil.copy(real_clips / "r3d_may.mp4", tmp_path / "videos" / "clips" / "RD_Radio1_001.mp4")
    hdtf_cut(tables, tmp_path / "videos", tmp_path / "out", size=128)
    assert recorded(tmp_path / "out" / "RD_Radio1_001.mp4")["how"] == "whole"
    assert probe(tmp_path / "out" / "RD_Radio1_001.mp4")[:2] == (128, 128)
    assert rows(tmp_path)["RD_Radio1_000"]["status"] == "missing"


def test_two_runs_share_the_work(cut, tmp_path):
    command = [sys.executable, "-m", "difftalk_pl", "hdtf", "cut", "--annotations", str(cut / "tables")]
    command += ["--folder", str(cut / "videos"), "--out", str(tmp_path / "out"), "--only", "AnnaLong2", "--size", "64"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    cuts = [sum(int(n) for n, word in zip(out.split(), out.split()[1:]) if word.startswith("cut")) for out, _ in told]
    assert sum(cuts) == 3
    assert len(read_clip_list(tmp_path / "out" / "clips.csv")) == 3
    assert not list((tmp_path / "out" / ".claims").iterdir())
