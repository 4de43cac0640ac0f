"""Lists of clips as people and their programs write them."""

import csv
from pathlib import Path

import pytest

from difftalk_pl.data.sources.clip_list import Piece, read_clip_list, seconds_of, write_clip_list
from difftalk_pl.errors import UserError


@pytest.fixture
def listed(tmp_path):
    """Writes a list and reads it."""

    def write_and_read(text: str | bytes, **rules) -> list[Piece]:
        path = tmp_path / "clips.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_clip_list(path, **rules)

    return write_and_read


def test_all_columns_and_the_fewest(listed, tmp_path):
    assert listed("video,start,stop,name,identity\ntalks/anna.mp4,12.5,00:41,first,anna\n/abs/ben.mp4,,,,\n") == [
        Piece("first", tmp_path / "talks/anna.mp4", 12.5, 41, "anna"),
        Piece("ben", Path("/abs/ben.mp4"), 0, None, "ben"),
    ]
    assert listed("video\nanna.mp4\n") == [Piece("anna", tmp_path / "anna.mp4", 0, None, "anna")]


def test_what_spreadsheets_and_editors_do(listed, tmp_path):
    """Byte-order mark, Windows line ends, blank lines, quotes, blanks around cells, capitals, further columns."""
    text = (
        '\ufeff Identity ,Video,note,START\r\n\r\n anna ,"a, b.mp4","two\r\nlines", 1:02:03.5 \r\n,,,\r\n,c.mp4,,,\r\n'
    )
    first, second = listed(text)
    assert first == Piece("a, b_03723500", tmp_path / "a, b.mp4", 3723.5, None, "anna")
    assert second.name == second.identity == "c"
    assert [piece.name for piece in listed("video,stop\rold mac.mp4,5\r")] == ["old mac_00000000"]


def test_clips_of_one_video_are_of_one_person_and_may_overlap(listed):
    pieces = listed("video,start,stop\nanna.mp4,0,10\nanna.mp4,5,15\nid10001/x/7.mp4,,\n")
    assert [(piece.name, piece.identity) for piece in pieces] == [
        ("anna_00000000", "anna"),
        ("anna_00005000", "anna"),
        ("id10001_x_7", "id10001"),
    ]
    by_folder = listed("video,start\nben/a.mp4,1\nben/b.mp4,1\n", identity="folder")
    assert [piece.identity for piece in by_folder] == ["ben", "ben"]
    assert [piece.name for piece in listed("video\ns1/a.mp4\ns2/a.mp4\n", names="path")] == ["s1_a", "s2_a"]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "path,from\na.mp4,1\n",
            "no column video, its columns are path, from; the first line has to name video, start",
        ),
        ("a.mp4,1,2\nb.mp4,1,2\n", r"no column video, its columns are a\.mp4, 1, 2"),
        ("video;start\na.mp4;1\n", "not parted by commas"),
        ("video\tstart\na.mp4\t1\n", "not parted by commas"),
        ("video,start_time\na.mp4,1\n", r"column start_time is not known; give start \(seconds in the video"),
        ("video,start,end\na.mp4,1,2\n", "column end is not known; give stop"),
        ("video,start,duration\na.mp4,1,2\n", "column duration is not known; give stop"),
        ("video,speaker\na.mp4,anna\n", "column speaker is not known; give identity in its place, or take it out"),
        ("video,start,start\na.mp4,1,2\n", "two columns start"),
        ("video,start\na.mp4,12,5\n", "line 2: 3 cells below 2 columns; a comma within a cell needs quotes"),
        ("video,start\n\n\na.mp4,soon\n", "line 4: 'soon' is no time"),
        ('video,note,start\na.mp4,"1\n2",0\nb.mp4,,x\n', "line 4: 'x' is no time"),
        ("video,start,stop\na.mp4,5,5\n", "line 2: it ends at 5 s and begins at 5 s"),
        ("video,stop\na.mp4,0\n", "line 2: it ends at 0 s"),
        ("start,video\n1\n", "line 2: no video"),
        ("video,name\na.mp4,x\nb.mp4,x\n", "line 3: a second clip 'x'; give names"),
        ("video,name\na.mp4,Anna\nb.mp4,anna\n", "line 3: a second clip 'anna'"),
        ("video,start,stop\na.mp4,1,2\na.mp4,1,3\n", "line 3: a second clip 'a_00001000'"),
        ("video,name\na.mp4,../x\n", "line 2: the name '../x' cannot be a folder's"),
        ("video,name\na.mp4,.x\n", "line 2: the name '.x'"),
        (f"video,name\na.mp4,{'x' * 250}\n", "line 2: the name x.* longer than 220 bytes"),
        ("video\na\0.mp4\n", "line 2: no video"),
        ('video\n"a.mp4\n', "cannot be read"),
        ("video,start\n", "no clips in it"),
        ("", "no column video, its columns are none"),
        ("video\nzoë.mp4\n".encode("latin-1"), "not UTF-8"),
        ("video\na.mp4\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(listed, text, message):
    with pytest.raises(UserError, match=rf"clips\.csv: .*{message}"):
        listed(text)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        read_clip_list(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "clock, seconds",
    [("0", 0), ("12.5", 12.5), ("1e-05", 1e-5), (".5", 0.5), ("00:41", 41), ("01:35.25", 95.25), ("1:02:03.5", 3723.5)],
)
def test_times(clock, seconds):
    assert seconds_of(clock) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize("clock", ["", "-1", "nan", "inf", "1:60", "1:60:00", "00:00:41,500", "1:2:3:4", "5 s", "1:-2"])
def test_what_is_no_time(clock):
    with pytest.raises(ValueError, match="is no time; expected seconds or a clock"):
        seconds_of(clock)


def test_written_lists_are_read_as_they_were(tmp_path):
    """To the millionth of a second; videos below the list are written relative, so that both may move together."""
    pieces = [
        Piece("a", tmp_path / "sub" / 'odd, "name".mp4', 0, None, "anna"),
        Piece("b", tmp_path / "b.mp4", 0, 100 / 3, "ben"),
        Piece("c", Path("/elsewhere/c.mp4"), 1001 / 30, 3600.5, "c"),
        Piece("d", tmp_path / "b.mp4", 10, None, "ben"),
    ]
    path = tmp_path / "list.csv"
    write_clip_list(path, pieces)
    again = read_clip_list(path)
    assert [piece._replace(start=0, stop=None) for piece in again] == [p._replace(start=0, stop=None) for p in pieces]
    for piece, true in zip(again, pieces):
        assert (piece.start, piece.stop) == pytest.approx((true.start, true.stop), abs=5.1e-7)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == ['sub/odd, "name".mp4', "b.mp4", "/elsewhere/c.mp4", "b.mp4"]
    assert [row["start"] for row in rows] == ["", "0", "33.366667", "10"]
    assert [file.name for file in tmp_path.iterdir()] == ["list.csv"]
