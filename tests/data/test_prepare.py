"""The whole command on videos that are made here from one photograph, good ones and every kind of bad ones."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from concurrent.futures import TimeoutError as JobTimeout
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from pebble import ProcessExpired
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips, read_index, verify
from difftalk_pl.data.parallel import run_jobs
from difftalk_pl.data.prepare import prepare, take_shard
from difftalk_pl.data.sources import ClipSource, find_sources
from difftalk_pl.errors import UserError
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
    prepare([sources], root, size=64)
    return root


def table(root: Path) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in read_index(root)}


@pytest.mark.parametrize(
    "name, reason",
    [
        ("short", "2.0 s long, at least 3 s are needed"),
        ("mute", "no audio track"),
        ("sub_faceless", "no face found"),
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


def test_landmarks_are_fractions_of_the_stored_frame(prepared):
    """The camera's pan moves the nose through the crop by as much as the photograph moves."""
    (clip,) = open_clips(prepared)
    points = np.asarray(clip.landmarks)
    assert points.dtype == np.float32 and points.min() > 0 and points.max() < 1
    side = clip.info()["crop"]["side"]
    pans = np.array([round(20 + 18 * np.sin(int(k * 1.2 + 1e-6) / 9)) for k in range(clip.frames)])
    moved = points[:, 27:36, 0].mean(axis=1) * side + pans
    assert np.abs(moved - np.median(moved)).max() < 3


def test_a_second_run_changes_nothing(sources, prepared):
    files = {path: path.stat().st_mtime_ns for path in (prepared / "clips").rglob("*")}
    before = table(prepared)
    prepare([sources], prepared, size=64)
    assert {path: path.stat().st_mtime_ns for path in (prepared / "clips").rglob("*")} == files
    assert table(prepared) == before


def test_only_changed_sources_and_settings_are_made_again(sources, tmp_path, capfd):
    folder, root = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("good", "short"):
        shutil.copyfile(sources / f"{name}.mp4", folder / f"{name}.mp4")

    def run(**options) -> str:
        capfd.readouterr()
        prepare([folder], root, size=64, **options)
        return capfd.readouterr().err

    run(smoothing=0)
    raw = np.array(open_clips(root)[0].landmarks)
    assert "1 prepared" in run(smoothing=2)
    assert not np.array_equal(raw, open_clips(root)[0].landmarks)
    os.utime(folder / "good.mp4")  # the same content
    assert "1 skipped" in (said := run(smoothing=2)) and "refused short: 2.0 s long" in said
    assert "2 prepared" in run(smoothing=2, min_seconds=1)
    assert [row["status"] for row in read_index(root)] == ["ok", "ok"] and not [*(root / "refused").iterdir()]
    shutil.copyfile(folder / "short.mp4", folder / "good.mp4")
    assert "1 prepared" in (said := run(smoothing=2, min_seconds=1)) and "1 skipped" in said
    assert [clip.frames for clip in open_clips(root)] == [50, 50]
    assert "2 skipped" in run(smoothing=2, min_seconds=1, identity="folder")
    assert {clip.identity for clip in open_clips(root)} == {"in"}


def test_what_is_wrong_with_the_command_is_said_before_any_work(sources, prepared, tmp_path):
    other = tmp_path / "good.mp4"
    shutil.copyfile(sources / "short.mp4", other)
    for options, message in {
        (("size", 128),): "holds frames of 64 pixels, not 128",
        (("shard", "5/4"),): "--shard 5/4: expected I/N",
    }.items():
        with pytest.raises(UserError, match=message):
            prepare([sources], prepared, **{"size": 64, **dict(options)})
    with pytest.raises(UserError, match=r"has clip 'good' from .*/good\.mp4; rename one"):
        prepare([other], prepared, size=64)
    with pytest.raises(UserError, match=r"no clip could be prepared; the reasons are in .*clips\.csv"):
        prepare([sources / "mute.mp4", sources / "text.mp4"], tmp_path / "out", size=64)
    assert len(table(tmp_path / "out")) == 2


def test_command_line(sources, tmp_path, capfd):
    videos = [str(sources / "mute.mp4"), str(sources / "text.mp4")]
    options = ["--out", str(tmp_path / "out"), "--size", "64", "--min_seconds=1.5", "--features", "mfcc"]
    assert main(["prepare", *videos, *options]) == 1
    said = capfd.readouterr().err.splitlines()
    assert "refused mute: no audio track" in said and "no clip could be prepared" in said[-1]


def test_a_full_disk_refuses_no_clip_for_good(sources, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("difftalk_pl.data.prepare.write_clip", full)
        with pytest.raises(UserError, match=r"1 clips failed .* tries them again"):
            prepare([sources / "good.mp4"], tmp_path, size=64)
    assert not (tmp_path / "refused").exists()
    prepare([sources / "good.mp4"], tmp_path, size=64)
    assert [clip.name for clip in open_clips(tmp_path)] == ["good"]


def test_scenes_become_clips_that_show_no_frame_of_their_neighbours(tmp_path, monkeypatch):
    pytest.importorskip("scenedetect")
    images = (view(k) if k < 45 else view(k)[:, ::-1] for k in range(100))
    write_video(tmp_path / "talk.mp4", images, audio=sound(4.0))
    prepare([tmp_path / "talk.mp4"], tmp_path / "out", size=64, min_seconds=1, split_scenes=True)
    first, second = open_clips(tmp_path / "out")
    assert [(clip.name, clip.frames) for clip in (first, second)] == [("talk_s000", 45), ("talk_s001", 55)]
    for reader, edge, beside in ((first.reader(), 44, 43), (second.reader(), 0, 1)):
        assert np.abs(reader[edge].astype(float) - reader[beside]).mean() < 20, "a frame of the other scene"
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(UserError, match=r"pip install 'difftalk_pl\[scenes\]'"):
        prepare([tmp_path / "talk.mp4"], tmp_path / "out", size=64, split_scenes=True)


def misbehave(number: int) -> int:
    """Run in a worker: 2 is killed, 3 fails, 4 hangs, the others are squared."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise ValueError("three")
    if number == 4:
        time.sleep(60)
    return number**2


def test_a_killed_or_hanging_worker_costs_its_own_job_only():
    results = dict(run_jobs(misbehave, range(7), workers=2, timeout=2))
    assert {job: result for job, result in results.items() if isinstance(result, int)} == {0: 0, 1: 1, 5: 25, 6: 36}
    assert isinstance(results[2], ProcessExpired) and results[2].exitcode == -signal.SIGKILL
    assert isinstance(results[3], ValueError) and isinstance(results[4], JobTimeout)
    assert dict(run_jobs(misbehave, [1, 3], workers=1))[1] == 1


def test_every_source_belongs_to_one_shard_counted_from_0_or_1():
    sources = [ClipSource(f"clip_{number}", Path("a.mp4")) for number in range(200)]
    for numbers in (range(4), range(1, 5)):
        shards = [take_shard(sources, f"{number}/4") for number in numbers]
        assert sorted(itertools.chain(*shards)) == sorted(sources)
        assert all(30 < len(shard) < 70 for shard in shards)
    assert take_shard(list(reversed(sources)), "1/4") == list(reversed(take_shard(sources, "1/4")))


def start_shard(sources: Path, root: Path, shard: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "difftalk_pl", "prepare", str(sources), "--out", str(root), "--size", "64"]
    return subprocess.Popen([*command, "--shard", shard], stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.mark.slow
def test_four_shards_one_of_them_killed(tmp_path):
    """The killed one was writing a clip; run again, every clip is there once and nothing is half written."""
    videos, root, names = tmp_path / "videos", tmp_path / "root", [f"talk_{number}" for number in range(12)]
    videos.mkdir()
    for name in names:
        talk(videos / f"{name}.mp4", 5.0)
    shards = [start_shard(videos, root, f"{number}/4") for number in range(4)]
    killed, mine = shards[0], {source.name for source in take_shard(find_sources([videos]), "0/4")}
    deadline = time.monotonic() + 120
    while not [path for path in (root / "clips").glob(".*/video.mp4*") if path.parent.name.split(".")[1] in mine]:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.002)
    os.killpg(killed.pid, signal.SIGKILL)
    assert [shard.wait(timeout=200) for shard in shards] == [-9, 0, 0, 0]
    made = {path: path.stat().st_ino for path in (root / "clips").glob("talk_*")}
    assert 0 < len(made) < len(names) and list((root / "clips").glob(".*.tmp"))
    shards = [start_shard(videos, root, f"{number}/4") for number in range(4)]
    assert [shard.wait(timeout=200) for shard in shards] == [0, 0, 0, 0]
    assert sorted(path.name for path in (root / "clips").iterdir()) == sorted(names)
    assert made.items() <= {path: path.stat().st_ino for path in (root / "clips").iterdir()}.items()
    clips = open_clips(root)
    assert [(clip.name, clip.frames) for clip in clips] == [(name, 125) for name in sorted(names)]
    for clip in clips:
        verify(clip)


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
