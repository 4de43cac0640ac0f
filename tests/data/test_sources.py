"""Finding clips in videos, folders and lists, and their names and identities; empty files will do."""

from pathlib import Path

import pytest

from difftalk_pl.data.sources import (
    ClipSource,
    clip_name,
    find_sources,
    find_videos,
    identity_of,
    read_clip_list,
    write_clip_list,
)
from difftalk_pl.errors import UserError
from difftalk_pl.faces.crop import Crop

TOP = Path("/data/any")


def lay(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


@pytest.mark.parametrize(
    "inside, name, person",
    [
        ("id10001/1zcIwhmdeo4/00001.mp4", "id10001_1zcIwhmdeo4_00001", "id10001"),
        ("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "dev_mp4_id00012_21Uxsk56VDQ_00001", "id00012"),
        ("M003/video/front/neutral/level_1/001.mp4", "M003_video_front_neutral_level_1_001", "M003"),
        ("main/5535415699068794046/00001.mp4", "main_5535415699068794046_00001", "5535415699068794046"),
        ("WRA_AdamKinzinger2_000.mp4", "WRA_AdamKinzinger2_000", "AdamKinzinger"),
        ("hdtf/RD_Radio1_001.mp4", "hdtf_RD_Radio1_001", "Radio1"),
        ("WDA_WhipJimClyburn.mp4", "WDA_WhipJimClyburn", "JamesClyburn"),
        ("RDX_Anna_000.mp4", "RDX_Anna_000", "RDX_Anna_000"),
        ("interviews/anna.mp4", "interviews_anna", "interviews_anna"),
        ("anna/001.mp4", "anna_001", "anna_001"),
        ("id123/talk.mp4", "id123_talk", "id123_talk"),
        ("Zoë/été – 1.final.mov", "Zoë_été – 1.final", "Zoë_été – 1.final"),
    ],
)
def test_names_and_people_of_published_datasets_and_of_own_videos(inside, name, person):
    assert clip_name(TOP / inside, TOP) == name
    assert identity_of(TOP / inside, TOP) == person


def test_identities_by_folder_and_by_name():
    for folder, inside, person in [("any", "s1/video/bbaf2n.mpg", "s1"), ("any/anna", "talk.mp4", "anna")]:
        assert identity_of(Path("/data") / folder / inside, Path("/data") / folder, "folder") == person
    assert identity_of(TOP / "id10001/x/1.mp4", TOP, "name") == "id10001_x_1"
    assert identity_of(Path("/srv/main/videos/001.mp4"), Path("/srv/main/videos")) == "001", "no folder above counts"


def test_folders_are_searched_and_a_file_that_is_reached_twice_counts_once(tmp_path):
    lay(tmp_path / "in", "a/talk.mp4", "b/anna.MOV", "notes.txt", ".hidden/x.mp4", "a/.y.mp4", "odd.name")
    lay(tmp_path / "elsewhere", "ben.mkv")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "b" / "loop").symlink_to(tmp_path / "in")
    found = find_sources([tmp_path / "in", tmp_path / "in" / "b" / "anna.MOV", tmp_path / "in" / "odd.name"])
    assert [source.name for source in found] == ["a_talk", "b_anna", "c_ben", "odd"]
    assert all(source.video.is_absolute() for source in found)


def test_what_cannot_be_found_or_named_is_an_error_with_its_remedy(tmp_path):
    lay(tmp_path, "s1/bbaf2n.mpg", "s2/bbaf2n.mpg", "empty/notes.txt", "odd/two\nlines.mp4")
    both = [tmp_path / "s1", tmp_path / "s2"]
    with pytest.raises(UserError, match=r"s1/bbaf2n\.mpg and .*s2/bbaf2n\.mpg .* clip 'bbaf2n': give the folder above"):
        find_sources(both)
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        find_sources([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no videos"):
        find_sources([tmp_path / "empty"])
    with pytest.raises(UserError, match="cannot be a folder's name"):
        find_sources([tmp_path / "odd"])
    (tmp_path / "odd" / "two\nlines.mp4").unlink()
    assert list(find_videos([tmp_path / "s1"])) == ["bbaf2n"]
    found = find_sources([tmp_path], identity="folder")
    assert [(source.name, source.identity) for source in found] == [("s1_bbaf2n", "s1"), ("s2_bbaf2n", "s2")]


def test_lists_say_which_seconds_of_which_videos_are_clips(tmp_path):
    path = lay(tmp_path, "id10001/x/00001.mp4", "one.mp4") / "list.csv"
    path.write_text(
        "\ufeffvideo,start,end,name,identity,crop\n"
        "id10001/x/00001.mp4,0,00:04,,,\n"
        "id10001/x/00001.mp4,4,1:00:08.5,,,10 20 300\n"
        "/else/where.mp4,,,anna 1,anna,\n"
        'one.mp4,12.25,,"a, b",,\n'
    )
    video = tmp_path / "id10001/x/00001.mp4"
    sources = read_clip_list(path)
    assert sources == [
        ClipSource("id10001_x_00001_00000000", video, 0, 4, "id10001"),
        ClipSource("id10001_x_00001_00004000", video, 4, 3608.5, "id10001", Crop(10, 20, 300)),
        ClipSource("anna 1", Path("/else/where.mp4"), identity="anna"),
        ClipSource("a, b", tmp_path / "one.mp4", 12.25, None, "one"),
    ]
    write_clip_list(tmp_path / "copy.csv", sources)
    assert read_clip_list(tmp_path / "copy.csv") == sources
    assert (tmp_path / "copy.csv").read_text().splitlines()[1].startswith("id10001/x/00001.mp4,,4.0,")
    assert [source.name for source in find_sources([path, tmp_path / "one.mp4"])][-1] == "one"
    with pytest.raises(UserError, match="would both be clip 'id10001_x"):
        find_sources([path, tmp_path / "copy.csv"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,start\na.mp4,0\n", "line 2: .*expected a column video and any of start, end"),
        ("video;start\na.mp4;0\n", "expected a column video"),
        ("video,start_time\na.mp4,0\n", "expected a column video"),
        ("video,start,end\na.mp4,0,5\nb.mp4,5,5\n", "line 3: video 'b.mp4' from '5' to '5' is no clip"),
        ("video,start\na.mp4,soon\n", "line 2: 'soon' is no time; expected seconds or a clock"),
        ("video,crop\na.mp4,1 2\n", "line 2: "),
        ("video,start\na.mp4,0,1\n", "line 2: "),
        ("video\n\xff", "cannot be read as CSV in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_list_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"list\.csv.*{message}"):
        read_clip_list(tmp_path / "list.csv")
