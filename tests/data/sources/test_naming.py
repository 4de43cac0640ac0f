"""Names and identities from paths: what published datasets look like, and what file systems allow."""

from pathlib import Path

import pytest

from difftalk_pl.data.sources.naming import LONGEST, check_name, clip_name, identity_of, part_name, same_folder

TOP = Path("/data/any")


@pytest.mark.parametrize(
    "inside, name, person",
    [
        ("id10001/1zcIwhmdeo4/00001.mp4", "id10001_1zcIwhmdeo4_00001", "id10001"),
        ("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "dev_mp4_id00012_21Uxsk56VDQ_00001", "id00012"),
        ("id10001/clip_a.mp4", "clip_a", "id10001"),
        ("M003/video/front/neutral/level_1/001.mp4", "M003_video_front_neutral_level_1_001", "M003"),
        ("main/5535415699068794046/00001.mp4", "main_5535415699068794046_00001", "5535415699068794046"),
        ("test/0Fi83BHQsMA/00002.mp4", "test_0Fi83BHQsMA_00002", "0Fi83BHQsMA"),
        ("WRA_AdamKinzinger2_000.mp4", "WRA_AdamKinzinger2_000", "AdamKinzinger"),
        ("hdtf/RD_Radio1_001.mp4", "RD_Radio1_001", "Radio1"),
        ("WDA_KatieHill.mp4", "WDA_KatieHill", "KatieHill"),
        ("RDX_Anna_000.mp4", "RDX_Anna_000", "RDX_Anna_000"),
        ("M2Ohb0FAaJU_1.mp4", "M2Ohb0FAaJU_1", "M2Ohb0FAaJU_1"),
        ("interviews/anna.mp4", "anna", "anna"),
        ("anna/001.mp4", "anna_001", "anna_001"),
        ("001.mp4", "001", "001"),
        ("id123/talk.mp4", "talk", "talk"),
        ("Zoë/été – 1.final.mov", "été – 1.final", "été – 1.final"),
    ],
)
def test_what_a_path_says(inside, name, person):
    video = TOP / inside
    assert clip_name(video, TOP) == name
    assert identity_of(video, TOP, name) == person


def test_voxceleb_and_mead_are_known_from_whatever_folder_is_given():
    for below in ("/vox", "/vox/id10001", "/vox/id10001/1zcIwhmdeo4"):
        assert identity_of(Path("/vox/id10001/1zcIwhmdeo4/00001.mp4"), Path(below), "x") == "id10001"
    assert identity_of(Path("/mead/M003/video/front/001.mp4"), Path("/mead/M003/video/front"), "x") == "M003"


def test_a_folder_of_numbered_videos_is_no_person_because_it_lies_in_main():
    """Only folders that were found by searching are taken for a source video of LRS."""
    assert identity_of(Path("/srv/main/videos/001.mp4"), Path("/srv/main/videos"), "001") == "001"


def test_transcripts_tell_lrs_folders(tmp_path):
    (tmp_path / "any" / "talk").mkdir(parents=True)
    video = tmp_path / "any" / "talk" / "00001.mp4"
    assert identity_of(video, tmp_path, "n") == "n"
    video.with_suffix(".txt").write_text("Text:  IT IS\n")
    assert identity_of(video, tmp_path, "n") == "talk"


@pytest.mark.parametrize(
    "inside, rule, person",
    [
        ("s1/video/bbaf2n.mpg", "name", "n"),
        ("s1/video/bbaf2n.mpg", "folder", "video"),
        ("s1/video/bbaf2n.mpg", "top", "s1"),
        ("bbaf2n.mpg", "folder", "any"),
        ("bbaf2n.mpg", "top", "any"),
        ("M2Ohb0FAaJU_1.mp4", "prefix", "M2Ohb0FAaJU"),
        ("-9a_12_x_3_10.mp4", "prefix", "-9a_12_x"),
        ("anna.mp4", "prefix", "n"),
        ("0012.mp4", "prefix", "n"),
        ("id10001/x/1.mp4", "name", "n"),
    ],
)
def test_rules_of_identity(inside, rule, person):
    assert identity_of(TOP / inside, TOP, "n", rule) == person


def test_rules_of_names():
    assert clip_name(TOP / "s1" / "bbaf2n.mpg", TOP, "path") == "s1_bbaf2n"
    assert clip_name(TOP / "s1" / "001.mpg", TOP, "stem") == "001"
    assert clip_name(Path("/elsewhere/s1/001.mpg"), TOP) == "001"  # a list may name videos outside its folder


def test_long_names_are_cut_at_a_letter_and_stay_apart():
    one, other = (clip_name(TOP / f"{'ü' * 140}{end}.mp4", TOP) for end in "ab")
    assert one != other and one[:100] == "ü" * 100
    assert LONGEST - 1 <= len(one.encode()) <= LONGEST
    part = part_name(one, "_s001")
    assert part.endswith("_s001") and len(part.encode()) <= LONGEST
    for name in (one, part, part_name("anna", "_s001")):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", ".hidden", "two\nlines", "bell\x07", "a\u2028b", "\udc80", "x" * 221]
)
def test_what_cannot_be_a_name(name):
    with pytest.raises(ValueError, match="the name"):
        check_name(name)


def test_names_that_are_one_folder_elsewhere():
    assert same_folder("Anna") == same_folder("aNNA")
    assert same_folder("Zoe\u0308") == same_folder("zoë")
    assert same_folder("anna_1") != same_folder("anna-1")
