"""The command report: lip sync beside the other columns, measured by networks that are told apart."""

import shutil

import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.quality.table import read_quality
from difftalk_pl.data.report import SyncJob, run_job
from difftalk_pl.evaluation.sync import sync_scores
from difftalk_pl.evaluation.sync_judge import SyncJudge
from difftalk_pl.media.wav import write_wav
from tests.runner import Runner

LAST = "synthetic_003"


@pytest.fixture(scope="module")
def syncnets(prepared, tmp_path_factory):
    """Two that were trained for a step each, on faces and on whole frames."""
    small = Runner(tmp_path_factory.mktemp("syncnets"), prepared)
    for crop in ("face_crop", "whole_frame"):
        small("fit", "syncnet", crop, {"trainer": {"max_steps": 1}, "data": {"sync": {"crop": crop}}})
    return {crop: small.checkpoint(crop) for crop in ("face_crop", "whole_frame")}


@pytest.fixture(scope="module")
def reported(prepared, syncnets, tmp_path_factory):
    """Two clips, one of them silent, with lip sync."""
    root = shutil.copytree(prepared, tmp_path_factory.mktemp("report") / "data")
    lines = (root / "clips.csv").read_text().splitlines(keepends=True)
    (root / "clips.csv").write_text("".join([lines[0], *lines[-2:]]))
    silent = next(clip for clip in open_clips(root) if clip.name == LAST)
    write_wav(silent.folder / "audio.wav", silent.audio() * 0, 16000)
    assert (
        main(["report", str(root), "--workers", "2", "--syncnet", str(syncnets["face_crop"]), "--device", "cpu"]) == 0
    )
    return root


def test_lip_sync_is_that_of_the_judge(reported, syncnets):
    rows = read_quality(reported)
    clip = next(clip for clip in open_clips(reported) if clip.name != LAST)
    stream = SyncJudge(syncnets["face_crop"], "face_crop").open(clip.landmarks, clip.frames, 64)
    reader = clip.reader()
    for number in range(clip.frames):
        stream.add(reader[number][None])
    reader.close()
    scores = sync_scores(*stream.finish(clip.audio()))
    assert rows[clip.name].sync_offset == scores.offset
    assert rows[clip.name].sync_confidence == pytest.approx(scores.confidence, rel=1e-3)
    assert rows[clip.name].sync_by.endswith("face_crop")


def test_a_silent_clip_has_no_lip_sync_and_no_level(reported):
    row = read_quality(reported)[LAST]
    assert (row.sync_offset, row.sync_confidence, row.level, row.speech, row.reason) == (None, None, None, 0, "")
    assert row.sync_by, "it is not tried again"


def test_the_page_is_there_and_the_summary_is_printed(reported, capsys):
    assert main(["report", str(reported)]) == 0
    out = capsys.readouterr().out
    assert "sync_offset" in out and "2 clips, 0.00 h" in out
    assert "sync_confidence" in (reported / "report" / "index.html").read_text()


def test_lip_sync_stays_until_its_clip_changes(reported, syncnets, monkeypatch):
    told = []
    monkeypatch.setattr("difftalk_pl.data.report.run_jobs", lambda function, jobs, workers: told.extend(jobs) or [])
    for crop, judged in (("face_crop", 0), ("whole_frame", 2)):
        words = ["--syncnet", str(syncnets[crop]), "--sync-crop", crop, "--device", "cpu"]
        assert main(["report", str(reported), *words]) == 0
        assert len(told) == judged, "another network is another measure"


def test_what_cannot_be_judged_says_why(prepared, syncnets, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "data")
    clip = open_clips(root)[0]
    (clip.folder / "video.mp4").write_bytes(b"x")
    assert "unreadable" in run_job(
        SyncJob(clip, 64, syncnets["face_crop"], "face_crop", "cpu", 1), lambda done, total: None
    )


@pytest.mark.parametrize(
    "words, told",
    [
        (["{root}", "--syncnet", "{root}/none.model"], "no weights of SyncNet"),
        (["{root}/nowhere"], "not a prepared dataset"),
    ],
)
def test_wrong_calls(prepared, tmp_path, capsys, words, told):
    code = main(["report", *(word.format(root=prepared) for word in words)])
    assert code == 1 and told in capsys.readouterr().err


def test_damaged_clips_end_it_with_a_line_after_the_page_is_written(prepared, tmp_path, capsys):
    root = shutil.copytree(prepared, tmp_path / "data")
    (root / "clips" / LAST / "landmarks.npy").unlink()
    assert main(["report", str(root)]) == 1
    assert "1 of 4 clips cannot be measured; run check" in capsys.readouterr().err
    assert LAST in (root / "report" / "index.html").read_text()
