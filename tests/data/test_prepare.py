"""The whole command on videos that are made here from one photograph, good ones and every kind of bad ones."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips, read_rows
from difftalk_pl.data.files.pool import run_jobs
from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.sources.layouts import find_videos
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import cut_frame
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video

SIDE = 320
PHOTO = np.asarray(Image.fromarray(skimage.data.astronaut()[:300, 70:420]).resize((SIDE * 350 // 300, SIDE)))


def view(k: int) -> np.ndarray:
    """The camera pans to and fro over the photograph."""
    left = round(20 + 18 * np.sin(k / 9))
    return PHOTO[:, left : left + SIDE]


def sound(seconds: float) -> np.ndarray:
    return (4000 * np.sin(np.arange(int(16000 * seconds)) * 0.2)).astype(np.int16)


def talk(path: Path, seconds: float = 3.2, fps: float = 25, mute: bool = False, faceless: bool = False) -> Path:
    images = (np.full((SIDE, SIDE, 3), 90, np.uint8) if faceless else view(k) for k in range(int(seconds * fps)))
    write_video(path, images, fps=fps, audio=None if mute else sound(seconds))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """good (30 fps), and one video for every reason to refuse."""
    folder = tmp_path_factory.mktemp("sources")
    talk(folder / "good.mp4", 4.0, fps=30)
    talk(folder / "short.mp4", 2.0)
    talk(folder / "mute.mp4", mute=True)
    (folder / "sub").mkdir()
    talk(folder / "sub" / "faceless.mp4", faceless=True)
    (folder / "text.mp4").write_text("not a video\n" * 200)
    (folder / "notes.txt").write_text("no suffix of a video")
    (folder / "truncated.mp4").write_bytes((folder / "good.mp4").read_bytes()[:-60_000])
    small = (np.asarray(Image.fromarray(view(k)).resize((150, 150))) for k in range(80))
    write_video(folder / "small.mp4", small, audio=sound(3.2))
    return folder


@pytest.fixture(scope="module")
def prepared(sources, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    prepare([sources], root, size=64, overlay=root / "overlay")
    return root


def table(root: Path) -> dict[str, dict[str, str]]:
    with (root / "clips.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    "name, reason",
    [
        ("short", "2.0 s long, at least 3 s are needed"),
        ("mute", "no audio track"),
        ("faceless", "no face found"),
        ("text", "unreadable: not a media file"),
        ("truncated", "damaged: Invalid data"),
        ("small", "face too small: "),
    ],
)
def test_refused_with_a_reason(prepared, name, reason):
    row = table(prepared)[name]
    assert row["status"] == "refused" and row["reason"].startswith(reason)
    assert not (prepared / "clips" / name).exists()


def test_a_good_clip_holds_what_the_source_shows(sources, prepared):
    """Frames, sound and landmarks are held against the source, cut by the crop that clip.json states."""
    assert table(prepared)["good"]["status"] == "ok"
    (clip,) = open_clips(prepared)
    assert clip.frames == 100 == int(table(prepared)["good"]["frames"])
    info = json.loads((clip.folder / "clip.json").read_text())
    crop = info["crop"]
    reader = clip.reader()
    for k, frame in enumerate(read_frames(sources / "good.mp4")):
        if k % 9 == 0:
            square = frame[crop["y"] : crop["y"] + crop["side"], crop["x"] : crop["x"] + crop["side"]]
            expected = np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.BOX)).astype(float)
            error = reader[k] - expected
            assert np.abs(error.mean()) < 1 and np.sqrt((error**2).mean()) < 8
    with wave.open(str(clip.folder / "audio.wav")) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (100 * 640, 16000, 1)
        stored = np.frombuffer(file.readframes(64000), np.int16)
    assert np.corrcoef(stored[1000:-1000], sound(4.0)[1000:-1000])[0, 1] > 0.95
    assert clip.features("mfcc").shape == (200, 26)
    assert info["source"]["width"] == SIDE and info["faces"]["seen"] >= 1
    assert (prepared / "overlay" / "good.png").exists()


def test_landmarks_are_fractions_of_the_stored_frame(prepared):
    """The camera's pan moves the nose through the crop by as much as the photograph moves."""
    (clip,) = open_clips(prepared)
    points = np.asarray(clip.landmarks)
    assert points.dtype == np.float32 and points.min() > 0 and points.max() < 1
    side = clip.info()["crop"]["side"]
    pans = np.array([round(20 + 18 * np.sin(int(k * 1.2 + 1e-6) / 9)) for k in range(clip.frames)])
    moved = points[:, 27:36, 0].mean(axis=1) * side + pans
    assert np.abs(moved - np.median(moved)).max() < 3


def test_second_run_leaves_everything_alone(sources, prepared):
    files = {path: path.stat().st_mtime_ns for path in (prepared / "clips").rglob("*")}
    before = table(prepared)
    started = time.monotonic()
    prepare([sources], prepared, size=64)
    assert time.monotonic() - started < 10
    assert {path: path.stat().st_mtime_ns for path in (prepared / "clips").rglob("*")} == files
    assert table(prepared) == before


def test_other_size_in_the_same_folder_is_an_error(sources, prepared):
    with pytest.raises(UserError, match="holds frames of 64 pixels, not 128"):
        prepare([sources], prepared, size=128)


def test_changed_settings_prepare_again_and_refused_ones_get_their_chance(sources, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    for name in ("good", "short"):
        (tmp_path / "in" / f"{name}.mp4").write_bytes((sources / f"{name}.mp4").read_bytes())
    root = tmp_path / "out"
    prepare([tmp_path / "in"], root, size=64, smoothing=0)
    raw = np.array(open_clips(root)[0].landmarks)
    prepare([tmp_path / "in"], root, size=64, smoothing=2)
    assert not np.array_equal(raw, open_clips(root)[0].landmarks)
    capfd.readouterr()
    prepare([tmp_path / "in"], root, size=64, smoothing=2)
    assert "still refused" in capfd.readouterr().err
    prepare([tmp_path / "in"], root, size=64, smoothing=2, retry_refused=True)
    assert "still refused" not in capfd.readouterr().err
    prepare([tmp_path / "in"], root, size=64, smoothing=2, min_seconds=1)
    assert [row.status for row in read_rows(root).values()] == ["ok", "ok"]


def test_nothing_usable_is_an_error(sources, tmp_path):
    with pytest.raises(UserError, match=r"no clip could be prepared; the reasons are in .*clips\.csv"):
        prepare([sources / "mute.mp4", sources / "text.mp4"], tmp_path / "out", size=64)
    assert len(table(tmp_path / "out")) == 2


def test_sources_are_checked_before_work_begins(sources, tmp_path):
    assert set(find_videos([sources, sources / "good.mp4"])) == {
        *("good", "short", "mute", "faceless", "text", "truncated", "small")
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "good.mp4").touch()
    with pytest.raises(UserError, match=r"sources.*/good\.mp4 and .*/good\.mp4 would both be clip 'good'"):
        find_videos([sources, tmp_path / "good.mp4"])
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        find_videos([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"a: no videos"):
        find_videos([tmp_path / "a"])
    with pytest.raises(UserError, match=r"--features magic: no such kind; there are mfcc"):
        prepare([sources], tmp_path / "out", features=["magic"])


def test_a_clip_of_the_same_name_is_not_overwritten(sources, prepared, tmp_path):
    other = tmp_path / "good.mp4"
    other.write_bytes((sources / "short.mp4").read_bytes())
    with pytest.raises(UserError, match=r"has clip 'good' from .*sources.*/good\.mp4; rename one"):
        prepare([other], prepared, size=64)


def test_command_line_takes_many_sources(sources, tmp_path, capfd):
    videos = [str(sources / "mute.mp4"), str(sources / "text.mp4")]
    options = ["--out", str(tmp_path / "out"), "--size", "64", "--min_seconds=1.5", "--features", "mfcc"]
    assert main(["prepare", *videos, *options, "--retry_refused", "true"]) == 1
    assert "no clip could be prepared" in capfd.readouterr().err.splitlines()[-1]
    assert set(table(tmp_path / "out")) == {"mute", "text"}
    with pytest.raises(SystemExit) as error:
        main(["prepare", *videos, "--out", str(tmp_path / "out"), "--size", "65"])
    assert error.value.code == 2


def test_resizing_does_not_alias():
    """A fine chequerboard becomes grey, not a coarser pattern."""
    from difftalk_pl.faces.crop import Crop

    board = np.indices((200, 200)).sum(axis=0) % 2 * 255
    small = cut_frame(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), Crop(10, 20, 150), 64)
    assert small.shape == (64, 64, 3) and np.ptp(small[4:-4, 4:-4].astype(int)) < 30


def _job(number: int, report) -> int:
    """Runs in a worker: job 2 is killed, job 3 fails, the others square."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise ValueError("three is refused")
    report(1, 2)
    return number**2


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_costs_its_own_job_only(workers):
    ends = {event.job: event for event in run_jobs(_job, range(7), workers) if event.kind not in ("start", "progress")}
    assert {job: event.value for job, event in ends.items() if event.kind == "done"} == {
        0: 0,
        1: 1,
        4: 16,
        5: 25,
        6: 36,
    }
    assert (ends[2].kind, ends[2].value) == ("died", -signal.SIGKILL)
    assert ends[3].kind == "failed" and "three is refused" in ends[3].value


def test_killed_in_the_middle_leaves_no_half_clip(tmp_path):
    """A real process, SIGKILL while a clip is being written: its worker clears up, a second run completes."""
    talk(tmp_path / "long.mp4", 24.0)
    root = tmp_path / "out"
    code = (
        "from pathlib import Path; from difftalk_pl.data.prepare import prepare\n"
        f"if __name__ == '__main__': prepare([Path({str(tmp_path / 'long.mp4')!r})], Path({str(root)!r}), size=128)"
    )
    (tmp_path / "run.py").write_text(code)
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (writing := list((root / "clips").glob(".long.*.tmp"))) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    assert writing
    process.kill()
    process.wait()
    assert not (root / "clips" / "long").exists()
    while list((root / "clips").glob(".*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list((root / "clips").iterdir()) == []  # the orphaned worker noticed and removed what it had begun
    subprocess.run([sys.executable, str(tmp_path / "run.py")], check=True, stderr=subprocess.DEVNULL)
    assert [clip.frames for clip in open_clips(root)] == [600]
    assert [path.name for path in (root / "clips").iterdir()] == ["long"]


@pytest.mark.slow
def test_real_clips_are_nearly_lossless(real_clips, tmp_path):
    """42 dB and more, on the clip with the finest detail, too, against frames cut and shrunk here."""
    prepare([real_clips / "hdtf_aoc.mp4", real_clips / "r3d_may.mp4", real_clips / "mt_yongen.mp4"], tmp_path, size=256)
    assert {name: row["reason"] for name, row in table(tmp_path).items() if row["reason"]} == {
        "mt_yongen": "no audio track"
    }
    for clip in open_clips(tmp_path):
        info, reader = clip.info(), clip.reader()
        x, y, side = info["crop"].values()
        errors = []
        for k, frame in enumerate(read_frames(info["source"]["path"])):
            square = Image.fromarray(np.ascontiguousarray(frame[y : y + side, x : x + side]))
            expected = np.asarray(square.resize((256, 256), Image.Resampling.LANCZOS))
            errors.append(((reader[k] - expected.astype(float)) ** 2).mean())
        assert len(errors) == clip.frames
        assert 10 * np.log10(255**2 / np.mean(errors)) >= 42
