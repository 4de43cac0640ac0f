"""Measures of clips against closed forms, the report command, and the filter data.keep."""

import logging
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.datamodule import HDTFDataModule
from difftalk_pl.data.measures import MEASURES, loudness, measure, sharpness
from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.quality import keep_clips, read_quality
from difftalk_pl.data.splits import Split
from difftalk_pl.errors import UserError

SECOND = np.arange(16000) / 16000


def test_sharpness_falls_with_blur(prepared):
    clip = open_clips(prepared)[0]
    with closing(clip.reader()) as reader:
        frame = reader[0]
    points = np.array(clip.landmarks[0])
    blurred = [gaussian_filter(frame, (sigma, sigma, 0)) for sigma in (0.5, 1, 2)]
    values = [sharpness(picture, points) for picture in (frame, *blurred)]
    assert values == sorted(values, reverse=True) and values[-1] < values[0] / 20
    assert sharpness(np.full_like(frame, 90), points) == 0


def test_levels_of_known_sounds():
    sine = np.round(16384 * np.sin(2 * np.pi * 1000 * SECOND)).astype(np.int16)
    assert loudness(sine) == (pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01), 1)
    half = np.concatenate([sine, np.zeros_like(sine)])
    assert loudness(half) == (pytest.approx(20 * np.log10(0.5 / np.sqrt(2)) - 3.01, abs=0.01), 0.5)
    assert loudness(np.zeros(6400, np.int16)) == (None, 0)


@pytest.fixture(scope="module")
def reported(prepared, tmp_path_factory) -> Path:
    """Four drawn clips and their report; the video of the third is damaged."""
    root = shutil.copytree(
        prepared, tmp_path_factory.mktemp("quality") / "data", ignore=shutil.ignore_patterns("latents")
    )
    (root / "clips" / "synthetic_002" / "video.mp4").write_bytes(b"no video")
    assert main(["report", "--data", str(root), "--workers", "2"]) == 1
    return root


def test_the_table_holds_the_measures_and_why_a_clip_has_none(reported):
    table = read_quality(reported).set_index("name")
    assert list(table.index) == [f"synthetic_{number:03d}" for number in range(4)]
    clip = open_clips(reported)[0]
    ears = np.linalg.norm(np.diff(clip.landmarks[:, [0, 16]], axis=1)[:, 0], axis=1).mean()
    row = table.loc[clip.name]
    assert row.face_size == pytest.approx(64 * ears, rel=1e-4) and row.seconds == clip.frames / 25
    assert row.yaw < 1 and 0 < row.speech <= 1 and np.isnan(row.faces)
    assert "video.mp4" in table.reason["synthetic_002"] and np.isnan(table.yaw["synthetic_002"])
    assert (table.reason == "").sum() == 3


def test_the_page_shows_every_clip_and_loads_nothing_from_elsewhere(reported):
    page = (reported / "report" / "index.html").read_text(encoding="utf-8")
    assert "4 clips of 0.00 h, 1 of them damaged" in page and "<script" not in page and "http" not in page
    for clip in open_clips(reported):
        assert f'src="{clip.name}.jpg"' in page
    sheet = Image.open(reported / "report" / "synthetic_000.jpg")
    green = (np.asarray(sheet, int) @ (-1, 2, -1) > 200).sum()
    assert sheet.size == (1024, 768) and green > 12 * 68, "landmarks are drawn"


def test_a_real_clip_has_known_measures(real_clips, tmp_path):
    prepare([real_clips / "r3d_may.mp4"], tmp_path, size=128)
    row = measure(open_clips(tmp_path)[0])
    assert 200 < row["face_size"] < 300, "pixels of the source"
    assert 2 < row["yaw"] < 8 and row["gaps"] == 0 and row["faces"] == 1
    assert -40 < row["level"] < -15 and row["speech"] > 0.7


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    """Four clips of an hour each; the yaw of d is unknown."""
    lines = [",".join(["name", *MEASURES, "reason"])]
    for name, yaw in (("a", "3"), ("b", "35"), ("c", "-36"), ("d", "")):
        lines.append(",".join([name, *(yaw if key == "yaw" else "20" for key in MEASURES), ""]))
    (tmp_path / "quality.csv").write_text("\n".join(lines))
    return [Clip(tmp_path, name, 90_000, name) for name in "abcd"]


@pytest.mark.parametrize(
    "expression, kept",
    [(None, "abcd"), ("yaw < 35", "ac"), ("abs(yaw) <= 35 and sharpness > 19.5", "ab"), ("not yaw > 4", "acd")],
)
def test_clips_are_kept_by_an_expression(tmp_path, clips, caplog, expression, kept):
    with caplog.at_level(logging.INFO):
        assert "".join(clip.name for clip in keep_clips(tmp_path, clips, expression)) == kept
    assert expression is None or f"{len(kept)} of 4 clips ({len(kept)}.00 h)" in caplog.text


@pytest.mark.parametrize(
    "expression, message",
    [
        ("yaww < 3", "yaww.*expected a condition on seconds, face_size, yaw"),
        ("yaw < ", "expected a condition on"),
        ("yaw", "expected a condition on"),
        ("@os.sep == yaw", "expected a condition on"),
        ("yaw > 90", "none of 4 clips fulfils it"),
    ],
)
def test_wrong_expressions_are_explained(tmp_path, clips, expression, message):
    with pytest.raises(UserError, match=message):
        keep_clips(tmp_path, clips, expression)


def test_clips_that_are_not_measured_are_refused(tmp_path, clips):
    with pytest.raises(UserError, match=r"quality\.csv: 1 clips are not measured \(e, …\); run report --data"):
        keep_clips(tmp_path, [*clips, Clip(tmp_path, "e", 1)], "yaw < 3")
    (tmp_path / "quality.csv").unlink()
    with pytest.raises(UserError, match=r"quality\.csv: missing; run report --data"):
        keep_clips(tmp_path, clips, "yaw < 3")


def test_the_data_module_keeps_clips(reported):
    names = [f"synthetic_00{number}" for number in range(4)]
    split = Split(val=names[1:2], test=names[3:])
    data = HDTFDataModule(reported, contents="frames", split=split, keep="sharpness > 0")
    data.setup("fit")
    assert [clip.name for clip in data.sides["train"]] == names[:1], "the damaged clip is left out"
