"""HDTF's annotation tables: the published ones where they are there, and every trap in small ones."""

import pytest

from difftalk_pl.data.hdtf import Window, read_annotations
from difftalk_pl.errors import UserError
from tests.conftest import SHARED, _there

SMALL = {
    "video_url": "\ufeffAnna0 https://example.org/a\nBen  https://example.org/b \nSilent https://example.org/c\n",
    "annotion_time": "Anna0.mp4 00:20-01:35 02:00-1:00:05 \nBen.mp4 00:00-00:35\n",
    "crop_wh": "Anna0_0.mp4 483 390 12 390\nBen_0.mp4 1 2 3 2\n",
    "crop_ratio": "Anna0_0.mp4 1.2\nBen_0.mp4 1.0\n",
    "resolution": "Anna0.mp4 720\nBen.mp4 0\n",
}


@pytest.fixture
def folder(tmp_path):
    """The three sources with the same small tables."""
    for source in ("RD", "WDA", "WRA"):
        for name, text in SMALL.items():
            (tmp_path / f"{source}_{name}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_published_tables_hold_what_they_are_known_to_hold():
    videos = read_annotations(_there(SHARED / "hdtf_annotations"))
    clips = [clip for video in videos for clip in video.clips]
    assert (len(videos), len(clips)) == (369, 436)
    assert sum(clip.seconds for clip in clips) / 3600 == pytest.approx(17.07, abs=0.005)
    by_source = {source: [clip for clip in clips if clip.source == source] for source in ("RD", "WDA", "WRA")}
    assert [len(found) for found in by_source.values()] == [66, 195, 175]
    assert [sum(clip.window is None for clip in found) for found in by_source.values()] == [2, 6, 7]
    assert all(clip.window is None or clip.window.width == clip.window.height for clip in clips)
    assert len({clip.name for clip in clips}) == 436 and not any(video.name == "Radio24" for video in videos)
    assert all(video.url.startswith("https://") for video in videos)


def test_names_times_windows_and_what_is_missing(folder):
    anna, ben = read_annotations(folder)[:2]
    assert (anna.name, anna.url, anna.lines, ben.lines) == ("Anna0", "https://example.org/a", 720, None)
    assert [clip.name for clip in anna.clips] == ["RD_Anna0_000", "RD_Anna0_001"]
    assert [(clip.start, clip.stop) for clip in anna.clips] == [(20, 95), (120, 3605)]
    assert anna.clips[0].window == Window(483, 390, 12, 390) and anna.clips[0].ratio == 1.2
    assert anna.clips[1].window is None and anna.clips[1].ratio is None


@pytest.mark.parametrize(
    "table, line, message",
    [
        ("annotion_time", "Ben.mp4 00:35-00:20", "Ben: '00:35-00:20' is no span"),
        ("annotion_time", "Ben.mp4 soon", "Ben: 'soon' is no span"),
        ("annotion_time", "Clara.mp4 00:00-00:35", "Clara has times and no address"),
        ("video_url", "Ben", "line 1 has a name and nothing else"),
    ],
)
def test_what_is_not_of_the_form_is_named(folder, table, line, message):
    (folder / f"WDA_{table}.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        read_annotations(folder)


def test_a_missing_table_is_named(folder):
    (folder / "WRA_crop_wh.txt").unlink()
    with pytest.raises(UserError, match=r"WRA_crop_wh\.txt.*annotation tables"):
        read_annotations(folder)
