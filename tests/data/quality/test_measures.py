"""What is measured of a clip, held against poses, blurs and sounds that are known."""

import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.quality.measures import (
    FILES,
    MEASURES,
    Quality,
    clip_sharpness,
    head_motion,
    loudness,
    measure,
    sharpness,
    stamp,
)
from difftalk_pl.data.quality.table import measure_dataset, read_quality, run_job, spread, write_quality
from difftalk_pl.errors import UserError
from difftalk_pl.faces.head_pose import FACE, POINTS, yaw

RATE, SECOND = 16000, np.arange(16000) / 16000


def turned(aside: float, nod: float = 0, tilt: float = 0, depth: float = 1, distance: float = np.inf) -> np.ndarray:
    """(1, 68, 2) of the mean face turned by degrees, its depth scaled, seen from a distance in cm."""
    a, n, t = np.radians([aside, nod, tilt])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(n), -np.sin(n)], [0, np.sin(n), np.cos(n)]])
    about_z = np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])
    points = (FACE - FACE.mean(axis=0)) * (1, 1, depth) @ (about_z @ about_y @ about_x).T
    flat = points[:, :2] / (1 - points[:, 2:] / distance)
    landmarks = np.zeros((1, 68, 2))
    landmarks[0, list(POINTS)] = flat * (7, -7) + 100
    return landmarks


@pytest.mark.parametrize("aside", [-60, -25, 0, 10, 45])
def test_yaw_is_the_turn_whatever_else_the_head_does(aside):
    for nod in (-20, 0, 20):
        for tilt in (-30, 0, 30):
            assert yaw(turned(aside, nod, tilt))[0] == pytest.approx(aside, abs=1e-6)


def test_yaw_of_other_faces_and_of_a_near_camera():
    assert yaw(turned(15, distance=60))[0] == pytest.approx(15, abs=2)
    for depth in (0.8, 1.2):
        assert yaw(turned(15, depth=depth))[0] == pytest.approx(15, abs=3)
        assert yaw(turned(45, depth=depth))[0] == pytest.approx(45, abs=7)


def test_a_nose_to_the_right_is_a_positive_yaw(prepared):
    """On the points of a drawn face, whose depth is not that of the mean face."""
    points = np.array(open_clips(prepared)[0].landmarks[:1])
    assert abs(yaw(points)[0]) < 1
    points[:, 27:36, 0] += 0.05
    assert yaw(points)[0] > 5


def test_blur_takes_sharpness_and_size_does_not(prepared):
    """The same face at three times the size, and blurred."""
    clip = open_clips(prepared)[0]
    reader = clip.reader()
    frame, points = reader[10], np.array(clip.landmarks[10])
    reader.close()
    sharp = sharpness(frame, points)
    larger = np.asarray(Image.fromarray(frame).resize((192, 192), Image.Resampling.LANCZOS))
    assert sharpness(larger, points) == pytest.approx(sharp, rel=0.25)
    blurred = [sharpness(gaussian_filter(frame, (sigma, sigma, 0)), points) for sigma in (0.5, 1, 2)]
    assert sharp > blurred[0] > blurred[1] > blurred[2] and blurred[2] < sharp / 20
    assert sharpness(np.full_like(frame, 90), points) == 0
    assert clip_sharpness(clip, np.array(clip.landmarks)) == pytest.approx(sharp, rel=0.5)


def test_levels_of_known_sounds():
    sine = np.round(16384 * np.sin(2 * np.pi * 1000 * SECOND)).astype(np.int16)
    level, speech, clipping = loudness(sine)
    assert level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01) and (speech, clipping) == (1, 0)
    half = np.concatenate([sine, np.zeros_like(sine)])
    level, speech, _ = loudness(half)
    assert level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)) - 3.01, abs=0.01) and speech == 0.5
    square = np.where(sine >= 0, 32767, -32768).astype(np.int16)
    assert loudness(square)[2] == 1
    assert loudness(np.zeros(6400, np.int16)) == (None, 0, 0)
    assert loudness(np.full(6400, 10, np.int16))[1] == 0, "under -60 dB nobody speaks"


def test_motion_counts_face_sizes_a_second():
    points = np.random.default_rng(0).random((1, 68, 2)).repeat(26, axis=0)
    points[:, 0], points[:, 16] = (0, 0), (0.5, 0)
    assert head_motion(points) == 0
    points = points + np.linspace(0, 1, 26)[:, None, None] * (0.3, 0.4)
    assert head_motion(points) == pytest.approx(1), "half the frame in a second, and the face is half as wide"


def test_drawn_clips(prepared):
    clip = open_clips(prepared)[0]
    row = measure(clip)
    ears = np.linalg.norm(np.diff(clip.landmarks[:, [0, 16]], axis=1)[:, 0], axis=1).mean()
    assert row.face_size == pytest.approx(64 * ears, rel=1e-5) and row.seconds == clip.frames / 25
    assert (row.gaps, row.longest_gap, row.faces, row.sync_offset) == (None,) * 4, "nothing was detected"
    assert row.yaw < 1 and 0 < row.motion < 1 and 0 < row.speech <= 1


def test_real_clips(real_clips, tmp_path):
    """In pixels of the source, and with what the detector saw; clips of two sizes have like sharpness."""
    rows = {}
    for size in (128, 256):
        prepare([real_clips / "r3d_may.mp4"], tmp_path / str(size), size=size)
        (clip,) = open_clips(tmp_path / str(size))
        rows[size] = measure(clip)
    row = rows[256]
    assert row.face_size == pytest.approx(rows[128].face_size, rel=1e-3) and 200 < row.face_size < 300
    assert 2 < row.yaw < 8 and row.yaw < row.yaw_p95 < 15
    assert row.gaps == 0 and row.faces == 1
    assert -40 < row.level < -15 and row.speech > 0.7
    assert 0.3 < rows[128].sharpness / row.sharpness < 1, "128 pixels hold less of it"


@pytest.fixture
def dataset(prepared, tmp_path):
    return shutil.copytree(
        prepared, tmp_path / "data", ignore=shutil.ignore_patterns("report", "quality.csv", "latents")
    )


def test_the_table_comes_back(tmp_path):
    rows = {"a, b": Quality("a, b", yaw=1.25, faces=2, reason='a "reason"', stamp="x"), "c": Quality("c")}
    write_quality(tmp_path, rows.values())
    assert read_quality(tmp_path) == rows
    assert set(MEASURES) < set(Quality._fields)


@pytest.mark.parametrize("content", ["name,yaw\nc,1\n", ",".join(Quality._fields) + "\nc,many\n", ""])
def test_a_damaged_table_is_told(tmp_path, content):
    (tmp_path / "quality.csv").write_text(content)
    with pytest.raises(UserError, match=r"quality\.csv: cannot be read .* remove it and run report"):
        read_quality(tmp_path)


def test_only_what_has_changed_is_measured_again(dataset, monkeypatch):
    first = measure_dataset(dataset, workers=2)
    assert len(first) == 4 and read_quality(dataset).keys() == first.keys()
    told = []
    monkeypatch.setattr("difftalk_pl.data.quality.table.run_jobs", lambda f, jobs, n: told.extend(jobs) or [])
    assert measure_dataset(dataset).keys() == first.keys() and not told
    (dataset / "clips" / "synthetic_001" / "clip.json").touch()
    (dataset / "report" / "synthetic_003.jpg").unlink()
    measure_dataset(dataset)
    assert [clip.name for clip in told] == ["synthetic_001", "synthetic_003"]


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("video.mp4", b"no video", "video.mp4: unreadable"),
        ("video.mp4", None, "No such file"),
        ("landmarks.npy", b"", "landmarks.npy: cannot be read"),
        ("clip.json", b"{", "Expecting property name"),
        ("audio.wav", b"RIFF", "audio.wav: no readable WAV file"),
    ],
)
def test_a_damaged_clip_has_a_reason(dataset, name, content, reason):
    clip = next(clip for clip in open_clips(dataset) if clip.name == "synthetic_002")
    (clip.folder / name).unlink()
    if content is not None:
        (clip.folder / name).write_bytes(content)
    row = run_job(clip, lambda done, total: None)
    assert reason in row.reason and "\n" not in row.reason and row.yaw is None and row.stamp == stamp(clip)


def test_a_damaged_clip_does_not_hold_up_the_others(dataset):
    (dataset / "clips" / "synthetic_002" / "video.mp4").write_bytes(b"no video")
    rows = measure_dataset(dataset)
    assert {name for name, row in rows.items() if row.reason} == {"synthetic_002"}
    assert all((row.yaw is None) == (row.name == "synthetic_002") for row in read_quality(dataset).values())


def test_every_measured_file_is_in_the_stamp(dataset):
    clip = open_clips(dataset)[0]
    stamps = {stamp(clip)}
    for name in FILES:
        (clip.folder / name).write_bytes((clip.folder / name).read_bytes() + b" ")
        stamps.add(stamp(clip))
    assert len(stamps) == 1 + len(FILES) and stamp(Clip(dataset, "gone", 1))


def test_spread_counts_what_is_not_known():
    found = spread([Quality("a", yaw=1), Quality("b", yaw=3), Quality("c")], "yaw")
    assert (found.known, found.unknown) == (2, 1) and found.percentiles[0::2] == (1, 2, 3)
    assert spread([Quality("c")], "yaw").percentiles == ()
