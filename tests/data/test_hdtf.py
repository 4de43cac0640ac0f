"""HDTF: its published tables, the list of clips, and clips prepared straight from the videos."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips, read_index
from difftalk_pl.data.hdtf import SOURCES, hdtf_clips, read_annotations
from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.sources import read_clip_list
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop, face_size
from difftalk_pl.media.audio import read_audio
from difftalk_pl.media.video import read_frames
from tests.conftest import SHARED, _there
from tests.data.hdtf_tables import write_tables

WITHOUT_WINDOW = {
    *("RD_Radio6_000", "RD_Radio15_000", "WDA_ByronDorgan0_000", "WDA_DeanPhillips_000", "WDA_JeffMerkley0_000"),
    *("WDA_JimMcGovern1_000", "WDA_JimMcGovern_000", "WDA_LindaSnchez_000", "WRA_BillCassidy_000"),
    *("WRA_CandiceMiller_000", "WRA_DuncanHunter_001", "WRA_JaimeHerreraBeutler_000", "WRA_KevinBrady0_000"),
    *("WRA_MittRomney_001", "WRA_RudyGiuliani_000"),
}


@pytest.fixture(scope="module")
def published():
    return read_annotations(_there(SHARED / "hdtf_annotations"))


def test_the_published_tables_hold_369_videos_436_clips_and_17_hours(published):
    assert (len({clip.video for clip in published}), len({clip.name for clip in published})) == (369, 436)
    assert len(published) == 436
    assert sum(clip.end - clip.start for clip in published) / 3600 == pytest.approx(17.07, abs=0.005)
    assert [sum(clip.source == source for clip in published) for source in SOURCES] == [66, 195, 175]
    assert all(clip.url.startswith("https://www.youtube.com/watch?v=") for clip in published)
    assert not any(clip.video == "Radio24" or "." in clip.video for clip in published)


def test_the_published_tables_are_read_as_they_are_meant(published):
    """A byte-order mark, windows by clip, clips without one, blanks at the end of lines; read off the tables by eye."""
    clips = {clip.name: clip for clip in published}
    assert clips["WDA_CarolynMaloney2_000"].url == "https://www.youtube.com/watch?v=RApGxN-O9Qc"
    assert {name for name, clip in clips.items() if clip.window is None} == WITHOUT_WINDOW
    assert clips["RD_Radio11_001"].window == Crop(557, 0, 478)
    assert clips["WDA_XavierBecerra_002"].window == Crop(588, 0, 707)
    spans = [(clip.start, clip.end) for clip in published if clip.video == "AdamKinzinger2"]
    assert spans == [(40, 80), (120, 160), (210, 230)]


@pytest.fixture(scope="module")
def listed(real_clips, tmp_path_factory):
    """Videos under the names that people give them, and the list of clips that the command makes of them."""
    root = tmp_path_factory.mktemp("hdtf")
    tables = write_tables(
        root / "tables",
        {
            "WRA/AnnaLong2": {  # dfrf_cnn2, 512 x 512
                "times": ["00:20-00:22", "00:31-00:33", "00:40-00:42"],
                "lines": 512,
                "windows": {0: "40 440 30 440", 1: "300 200 0 200"},
            },
            "WDA/TallMan": {  # ls_demo1, 1080 x 1920
                "times": ["00:02-00:04"],
                "lines": 960,
                "windows": {0: "150 290 210 290"},
            },
            "RD/Radio1": {"times": ["00:00-00:02", "00:03-00:05"]},
            "RD/Radio2": {"times": ["00:00-00:03"]},
            "WDA/TooShort": {"times": ["00:02-00:04", "00:30-00:40"]},
        },
    )
    places = {
        "WRA/WRA_AnnaLong2": "dfrf_cnn2",
        "clips/TallMan": "ls_demo1",
        "TooShort": "r3d_may",
    }
    for place, clip in places.items():
        path = root / "videos" / f"{place}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real_clips / f"{clip}.mp4", path)
    (root / "videos" / "Radio1.mp4").write_bytes((real_clips / "hdtf_aoc.mp4").read_bytes()[:3000])
    options = ["--annotations", str(tables), "--videos", str(root / "videos"), "--out", str(root / "clips.csv")]
    assert main(["hdtf", "clips", *options]) == 0
    return root


def test_the_list_has_spans_people_and_windows_scaled_to_the_files(listed):
    sources = {source.name: source for source in read_clip_list(listed / "clips.csv")}
    assert set(sources) == {
        *("WRA_AnnaLong2_000", "WRA_AnnaLong2_001", "WRA_AnnaLong2_002", "WDA_TallMan_000"),
        *("WDA_TooShort_000", "WDA_TooShort_001", "RD_Radio1_000", "RD_Radio1_001"),
    }
    assert sources["WRA_AnnaLong2_001"][2:] == (31, 33, "AnnaLong", Crop(300, 0, 200))
    assert sources["WRA_AnnaLong2_002"].crop is None
    assert sources["WDA_TallMan_000"].crop == Crop(300, 420, 580)
    assert all(source.video.exists() for source in sources.values())


def test_what_was_found_and_what_is_missing_is_logged(listed, caplog):
    caplog.set_level("INFO")
    hdtf_clips(listed / "tables", listed / "videos", listed / "again.csv")
    assert re.search(r"\d of \d videos, 8 of 9 clips, \d\.\d\d of \d\.\d\d h\b", caplog.text)
    assert "missing: RD_Radio2" in caplog.text
    (listed / "other").mkdir()
    shutil.copy(listed / "videos" / "TooShort.mp4", listed / "other" / "nobody.mp4")
    with pytest.raises(UserError, match="none of HDTF's videos is there; run hdtf download first"):
        hdtf_clips(listed / "tables", listed / "other", listed / "none.csv")
    with pytest.raises(UserError, match=r"RD_video_url\.txt.*give the folder with HDTF's annotation tables"):
        hdtf_clips(listed / "videos", listed / "videos", listed / "none.csv")


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2))


def test_clips_are_prepared_straight_from_the_videos(listed, real_clips, tmp_path):
    """The published window where a face fills it, else a square about the face; pixels, moments and sound are those of
    the video."""
    prepare([listed / "clips.csv"], tmp_path, size=128, min_seconds=1, workers=2)
    rows, clips = {row["name"]: row for row in read_index(tmp_path)}, {clip.name: clip for clip in open_clips(tmp_path)}
    assert {name for name, row in rows.items() if row["status"] == "refused"} == {
        *("RD_Radio1_000", "RD_Radio1_001", "WDA_TooShort_001")
    }
    assert "no span from 30 to 40 s" in rows["WDA_TooShort_001"]["reason"]
    assert clips["WRA_AnnaLong2_000"].identity == "AnnaLong"
    for name, video, start, (x, y, side) in [
        ("WRA_AnnaLong2_000", "dfrf_cnn2", 20, Crop(40, 30, 440)),
        ("WDA_TallMan_000", "ls_demo1", 2, Crop(300, 420, 580)),
    ]:
        clip, reader = clips[name], clips[name].reader()
        assert clip.frames == 50 and clip.info()["crop"] == {"x": x, "y": y, "side": side}
        frames = list(read_frames(real_clips / f"{video}.mp4", 25, start, start + 2))
        images = [Image.fromarray(frame[y : y + side, x : x + side]) for frame in frames]
        true = [np.asarray(image.resize((128, 128), Image.Resampling.LANCZOS)) for image in images]
        assert min(psnr(reader[k], true[k]) for k in range(50)) > 38
        assert psnr(reader[10], true[10]) > psnr(reader[10], true[11]) + 3
        audio = read_audio(real_clips / f"{video}.mp4", 16000, start, start + 2)
        assert np.corrcoef(clip.audio()[800:30_000], audio[800:30_000])[0, 1] > 0.98
    for name in ("WRA_AnnaLong2_001", "WRA_AnnaLong2_002"):
        assert 1.5 < 1 / face_size(clips[name].landmarks) < 2.8
