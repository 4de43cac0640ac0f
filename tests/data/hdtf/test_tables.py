"""HDTF's annotation tables: the published ones where they are there, and every trap in small ones."""

import pytest

from difftalk_pl.data.hdtf.tables import SOURCES, Window, read_annotations, untimed
from difftalk_pl.errors import UserError
from tests.conftest import SHARED, _there

SMALL = {
    "video_url": "\ufeffAnna0 https://example.org/a\nBen  https://example.org/b \nSilent https://example.org/c\n",
    "annotion_time": "Anna0.mp4 00:20-01:35 02:00-1:00:05 \nBen.mp4 00:00-00:35\t\n\n",
    "crop_wh": "Anna0_1.mp4 483 390 12 391 \nBen_0.mp4 1 2 3 2\n",
    "crop_ratio": "Anna0_1.mp4 1.2\nBen_0.mp4 1.0 \n",
    "resolution": "Anna0.mp4 720\nBen.mp4 0 \n",
}
WITHOUT_WINDOW = {
    "RD": {"RD_Radio6_000", "RD_Radio15_000"},
    "WDA": {
        *("WDA_ByronDorgan0_000", "WDA_DeanPhillips_000", "WDA_JeffMerkley0_000", "WDA_JimMcGovern1_000"),
        *("WDA_JimMcGovern_000", "WDA_LindaSnchez_000"),
    },
    "WRA": {
        *("WRA_BillCassidy_000", "WRA_CandiceMiller_000", "WRA_DuncanHunter_001", "WRA_JaimeHerreraBeutler_000"),
        *("WRA_KevinBrady0_000", "WRA_MittRomney_001", "WRA_RudyGiuliani_000"),
    },
}


@pytest.fixture
def folder(tmp_path):
    """Small tables of RD; those of the other sources are empty."""
    for source in SOURCES:
        for name, text in SMALL.items():
            (tmp_path / f"{source}_{name}.txt").write_text(text if source == "RD" else "", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def published():
    return read_annotations(_there(SHARED / "hdtf_annotations"))


def test_the_published_tables_hold_what_they_are_known_to_hold(published):
    clips = [clip for video in published for clip in video.clips]
    assert (len(published), len(clips), len({clip.name for clip in clips})) == (369, 436, 436)
    assert sum(clip.seconds for clip in clips) / 3600 == pytest.approx(17.07, abs=0.005)
    assert [sum(clip.source == source for clip in clips) for source in SOURCES] == [66, 195, 175]
    assert all(video.url.startswith("https://www.youtube.com/watch?v=") for video in published)
    assert all(len(video.url.split()) == 1 and video.name.isascii() for video in published)


def test_the_byte_order_mark_is_no_part_of_the_first_name(published, folder):
    raw = (SHARED / "hdtf_annotations" / "WDA_video_url.txt").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfCarolynMaloney2 ")
    (maloney,) = [video for video in published if video.name == "CarolynMaloney2"]
    assert maloney.url == "https://www.youtube.com/watch?v=RApGxN-O9Qc"
    assert read_annotations(folder)[0].name == "Anna0"


def test_a_video_without_times_is_left_out_and_named(published, folder):
    assert "Radio24" not in {video.name for video in published}
    assert untimed(SHARED / "hdtf_annotations") == ["Radio24"] and untimed(folder) == ["Silent"]


def test_clips_without_a_row_of_crops_have_no_window_and_others_keep_their_own(published, folder):
    clips = [clip for video in published for clip in video.clips]
    without = {source: {clip.name for clip in clips if clip.source == source and not clip.window} for source in SOURCES}
    assert without == WITHOUT_WINDOW and all((clip.window is None) == (clip.ratio is None) for clip in clips)
    assert all(clip.window is None or clip.window.width == clip.window.height > 0 for clip in clips)
    by_name = {clip.name: clip for clip in clips}  # read off the tables by eye
    assert by_name["RD_Radio11_001"].window == Window(x=557, width=478, y=0, height=478)
    assert by_name["WDA_XavierBecerra_002"].window == Window(588, 707, 0, 707)
    first, second = read_annotations(folder)[0].clips
    assert (first.window, first.ratio) == (None, None)
    assert (second.window, second.ratio) == (Window(483, 390, 12, 391), 1.2)


def test_names_are_the_same_with_and_without_their_suffix(published, folder):
    assert not any("." in video.name for video in published)
    anna, ben = read_annotations(folder)
    assert (anna.name, anna.url, anna.lines, ben.lines) == ("Anna0", "https://example.org/a", 720, None)
    assert [clip.name for clip in anna.clips] == ["RD_Anna0_000", "RD_Anna0_001"]


def test_blanks_at_the_end_and_empty_lines_say_nothing(published, folder):
    (adam,) = [video for video in published if video.name == "AdamKinzinger2"]
    assert [(clip.start, clip.stop) for clip in adam.clips] == [(40, 80), (120, 160), (210, 230)]
    anna, ben = read_annotations(folder)
    assert [(clip.start, clip.stop) for clip in (*anna.clips, *ben.clips)] == [(20, 95), (120, 3605), (0, 35)]
    assert ben.url == "https://example.org/b"


@pytest.mark.parametrize(
    "table, line, message",
    [
        ("annotion_time", "Ben.mp4 00:35-00:20", "Ben: '00:35-00:20' is no span"),
        ("annotion_time", "Ben.mp4 soon", "Ben: 'soon' is no span"),
        ("annotion_time", "Ben.mp4 :-::", "Ben: ':-::' is no span"),
        ("annotion_time", "Clara.mp4 00:00-00:35", "Clara has times and no address"),
        ("annotion_time", "Ben 00:00-00:35\nBen.mp4 00:40-00:50", "line 2: Ben has a line already"),
        ("video_url", "Ben", "line 1 has a name and nothing else"),
        ("video_url", "../Ben https://example.org/b", "line 1: the name '../Ben' cannot be a file's"),
        ("crop_wh", "Ben_0.mp4 1 2 3", "Ben_0: expected 4 numbers, found '1 2 3'"),
        ("crop_wh", "Ben_0.mp4 1 2 x 2", "Ben_0: expected 4 numbers, found '1 2 x 2'"),
        ("crop_ratio", "Ben_0.mp4 -1", "Ben_0: expected 1 numbers, found '-1'"),
        ("resolution", "Ben.mp4 720p", "Ben: expected 1 numbers, found '720p'"),
    ],
)
def test_what_is_not_of_the_form_is_named_with_its_file(folder, table, line, message):
    (folder / f"RD_{table}.txt").write_text(line)
    with pytest.raises(UserError, match=rf"RD_{table}\.txt.*{message}"):
        read_annotations(folder)


def test_one_name_in_two_sources_is_refused(folder):
    for name, text in SMALL.items():
        (folder / f"WRA_{name}.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="Anna0 is a video of RD and of WRA"):
        read_annotations(folder)


def test_a_missing_table_and_one_that_is_no_text_are_named(folder):
    (folder / "WRA_crop_wh.txt").unlink()
    with pytest.raises(UserError, match=r"WRA_crop_wh\.txt.*annotation tables"):
        read_annotations(folder)
    (folder / "RD_video_url.txt").write_bytes(b"Anna\xff https://example.org\n")
    with pytest.raises(UserError, match=r"RD_video_url\.txt.*annotation tables"):
        read_annotations(folder)
