"""HDTF's files as people have them: recognised by name, checked, linked; the state of a folder as a table."""

import os
import shutil

import numpy as np
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.hdtf.files import (
    Unfit,
    check_clip,
    check_original,
    clip_file,
    find_local,
    link,
    names_in,
    video_file,
)
from difftalk_pl.data.hdtf.ledger import Ledger
from difftalk_pl.data.hdtf.tables import read_annotations
from difftalk_pl.errors import UserError
from difftalk_pl.media.files import MediaError
from difftalk_pl.media.writer import write_video
from tests.conftest import SHARED, _there
from tests.data.hdtf.video_server import write_tables

MEANT = {
    "Radio1": [
        *("Radio1.mp4", "RD_Radio1.mkv", "radio1.MP4", "raw/deep/Radio1.MP4", "CPCoMyuBRM0.webm"),
        *("A talk [CPCoMyuBRM0].mp4", "A talk-CPCoMyuBRM0.mp4"),
    ],
    "KatieHill": ["KatieHill.mkv", "WDA_KatieHill.mp4", "WDA/KatieHill.mp4"],
    "RD_Radio1_000": ["RD_Radio1_000.mp4", "RD_Radio1_0.mp4", "Radio1_0.mp4", "x/rd_radio1_000.MP4"],
    "WDA_KatieHill_000": ["WDA_KatieHill_000.mp4", "KatieHill_0.mp4"],
    "WRA_AdamKinzinger2_002": ["WRA_AdamKinzinger2_002.mp4", "AdamKinzinger2_2.avi"],
    None: ["RD_KatieHill.mp4", "Radio1_7.mp4", "Radio99.mp4", "AdamKinzinger_0.mp4", "holiday.mp4", "RD_Radio24.mp4"],
}
NAMES = {name: meant for meant, names in MEANT.items() for name in names}
LEFT_OUT = ("Radio1.mp4.part", "Radio1.txt", ".Radio1.mp4", ".partial/Radio1.mp4")


@pytest.fixture(scope="session")
def published():
    return read_annotations(_there(SHARED / "hdtf_annotations"))


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Drawn noise: six seconds, two seconds, and six without sound."""
    folder, random = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for name, seconds, sound in (("long", 6, True), ("short", 2, True), ("silent", 6, False)):
        frames = (random.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(25 * seconds))
        write_video(folder / f"{name}.mp4", frames, audio=np.ones(16000 * seconds, np.int16) if sound else None)
    return folder


@pytest.fixture
def tables(tmp_path):
    """Anna and Ben, whose clips are 1-3 s and 4-6 s."""
    addresses = {name: f"https://example.org/{name}" for name in ("Anna", "Ben")}
    return write_tables(tmp_path / "tables", addresses, "00:01-00:03 00:04-00:06")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_known_by_its_name(name, published, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    for one in (name, *LEFT_OUT):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).write_bytes(b"0")
    found, path = find_local(tmp_path, published), tmp_path / name
    assert found.originals | found.clips == ({NAMES[name]: path} if NAMES[name] else {})
    assert found.unknown == ([] if NAMES[name] else [path])


def test_one_address_under_two_names_gives_both(published, tmp_path):
    (tmp_path / "gh3YqnvNdio.mp4").write_bytes(b"0")
    assert set(find_local([tmp_path], published).originals) == {"JamesClyburn1", "WhipJimClyburn"}


def test_of_two_files_for_one_video_neither_is_taken_and_both_are_named(published, tmp_path, caplog):
    for name in ("a/Radio1.mp4", "b/RD_Radio1.mkv", "KatieHill.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = find_local(tmp_path, published)
    assert list(found.originals) == ["KatieHill"] and len(found.unknown) == 2
    assert "a/Radio1.mp4" in caplog.text and "b/RD_Radio1.mkv" in caplog.text


def test_one_file_by_two_ways_counts_once(published, tmp_path):
    (tmp_path / "Radio1.mp4").write_bytes(b"0")
    os.link(tmp_path / "Radio1.mp4", tmp_path / "RD_Radio1.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "Radio1.mp4")
    found = find_local([tmp_path, tmp_path], published)
    assert list(found.originals) == ["Radio1"] and found.unknown == []


def test_a_video_in_its_place_has_any_container_and_is_one(tmp_path):
    assert video_file(tmp_path / "nowhere", "Anna") is None and names_in(tmp_path / "nowhere") == set()
    for name in ("Anna.webm", "Anna0.mp4", "Anna.mp4.part", "Anna.json"):
        (tmp_path / name).write_bytes(b"0")
    assert video_file(tmp_path, "Anna") == tmp_path / "Anna.webm"
    (tmp_path / "Anna.MP4").write_bytes(b"0")
    with pytest.raises(UserError, match=r"Anna\.MP4 and .*Anna\.webm are there; keep one"):
        video_file(tmp_path, "Anna")


def test_what_is_not_whole_or_not_meant_is_told_apart(films, tables, tmp_path):
    anna = read_annotations(tables)[0]
    assert check_original(films / "long.mp4", anna) == (6, 32, 32)
    assert check_clip(films / "short.mp4", anna.clips[0]).seconds == pytest.approx(2, abs=0.1)
    with pytest.raises(Unfit, match=r"its picture ends at 2\.0 s and its last clip at 6 s.*RD_Anna_000"):
        check_original(films / "short.mp4", anna)
    with pytest.raises(Unfit, match=r"6\.0 s of picture and 6\.0 s of sound; the tables say 2 s"):
        check_clip(films / "long.mp4", anna.clips[0])
    with pytest.raises(MediaError, match="no audio track"):
        check_original(films / "silent.mp4", anna)
    content = (films / "long.mp4").read_bytes()
    for share, reason in ((0.9, "breaks off at"), (0.01, "not a media file, or cut off")):
        (tmp_path / "cut.mp4").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(MediaError, match=reason):
            check_original(tmp_path / "cut.mp4", anna)


def test_a_link_is_hard_or_symbolic_or_a_copy_and_never_moves(films, tmp_path, monkeypatch):
    source = shutil.copy(films / "short.mp4", tmp_path / "short.mp4")
    link(source, tmp_path / "new" / "hard.mp4")
    assert os.stat(source).st_nlink == 2

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    link(source, tmp_path / "soft.mp4")
    assert (tmp_path / "soft.mp4").is_symlink() and (tmp_path / "soft.mp4").samefile(source)
    monkeypatch.setattr(os, "symlink", refuse)
    link(source, tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").samefile(source)
    assert (tmp_path / "copy.mp4").read_bytes() == source.read_bytes()


def test_from_local_takes_what_is_whole_and_names_the_rest(films, tables, tmp_path, capsys):
    mine, folder = tmp_path / "mine", tmp_path / "videos"
    (mine / "clips").mkdir(parents=True)
    shutil.copy(films / "long.mp4", mine / "RD_Anna.MP4")
    shutil.copy(films / "short.mp4", mine / "clips" / "RD_Ben_000.mp4")
    shutil.copy(films / "long.mp4", mine / "clips" / "RD_Ben_001.mp4")  # too long for a clip
    shutil.copy(films / "long.mp4", mine / "holiday.mp4")
    arguments = ["hdtf", "download", "--annotations", str(tables), "--folder", str(folder), "--from-local", str(mine)]
    assert main(arguments) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "1 originals and 1 ready-cut clips taken; 0 were there already, 1 are of no use, 1 are unknown" in said
    assert "holiday.mp4" in said.replace(" ", "") and "thetablessay2s" in said.replace(" ", "")
    assert video_file(folder, "Anna").samefile(mine / "RD_Anna.MP4") and video_file(folder, "Ben") is None
    assert clip_file(folder, "RD_Ben_000").samefile(mine / "clips" / "RD_Ben_000.mp4")
    record = Ledger(folder).read("Anna")
    assert (record.state, record.file, record.origin) == ("done", "Anna.mp4", str(mine / "RD_Anna.MP4"))
    assert main(arguments) == 1 and "0 originals and 0 ready-cut clips taken; 2 were there" in capsys.readouterr().err
    assert main(["hdtf", "status", "--annotations", str(tables), "--folder", str(folder)]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("all")]
    assert row == ["all", "2", "1", "0", "0", "1", "4", "0.00", "3", "0.00"]


def test_a_link_whose_file_is_gone_is_no_file(films, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "Anna.mp4").symlink_to(tmp_path / "away" / "Anna.mp4")
    assert video_file(folder, "Anna") is None and names_in(folder) == set()
    link(films / "long.mp4", folder / "Anna.mp4")
    assert video_file(folder, "Anna").samefile(films / "long.mp4")


def test_two_may_take_the_same_files(films, tables, tmp_path, monkeypatch, capsys):
    mine, folder = tmp_path / "mine", tmp_path / "videos"
    mine.mkdir()
    shutil.copy(films / "short.mp4", mine / "RD_Ben_000.mp4")

    def raced(source, target):
        link(source, target)
        link(source, target)

    monkeypatch.setattr("difftalk_pl.data.hdtf.local.link", raced)
    arguments = ["hdtf", "download", "--annotations", str(tables), "--folder", str(folder), "--from-local", str(mine)]
    assert main(arguments) == 0 and "1 were there already" in " ".join(capsys.readouterr().err.split())


def test_from_local_without_anything_of_hdtf_fails(films, tables, tmp_path, capsys):
    arguments = ["hdtf", "download", "--annotations", str(tables), "--folder", str(tmp_path / "videos")]
    assert main([*arguments, "--from-local", str(films)]) == 1
    assert "none of HDTF's videos or clips among 3 files" in capsys.readouterr().err
    assert main([*arguments, "--from-local", str(tmp_path / "nowhere")]) == 1
    assert main([*arguments, "--only", "Clara"]) == 2 and "Clara: no source" in capsys.readouterr().err


def test_a_file_put_there_by_hand_is_looked_at(films, tables, tmp_path, capsys):
    pytest.importorskip("yt_dlp")
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(films / "long.mp4", folder / "Anna.mp4")
    shutil.copy(films / "short.mp4", folder / "Ben.mp4")
    arguments = ["--annotations", str(tables), "--folder", str(folder)]
    assert main(["hdtf", "status", *arguments]) == 0
    assert "not looked at yet, hdtf download does: Anna, Ben" in capsys.readouterr().out
    assert main(["hdtf", "download", *arguments]) == 1
    assert Ledger(folder).read("Anna").state == "done" and (folder / "Ben.mp4").exists()
    assert "Ben.mp4: its picture ends at 2.0 s" in Ledger(folder).read("Ben").reason


def test_status_of_nothing_yet(tmp_path, capsys):
    tables = _there(SHARED / "hdtf_annotations")
    assert main(["hdtf", "status", "--annotations", str(tables), "--folder", str(tmp_path / "videos")]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith(("RD", "W", "all"))}
    assert rows["all"] == ["369", "0", "0", "0", "369", "436", "17.07", "0", "0.00"]
    assert [rows[source][5] for source in ("RD", "WDA", "WRA")] == ["66", "195", "175"]
    assert "without times in the tables, so without clips: Radio24" in said
    assert not (tmp_path / "videos").exists()
