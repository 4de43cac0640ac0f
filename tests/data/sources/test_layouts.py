"""Finding videos in folders of every kind; nothing is read, so that empty files will do."""

import os
from pathlib import Path

import pytest

from difftalk_pl.data.sources.layouts import find_pieces, find_videos
from difftalk_pl.errors import UserError


def lay(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def names(folder: Path, **rules) -> list[str]:
    return [piece.name for piece in find_pieces([folder], **rules)]


def test_nested_voxceleb_lrs_and_telling_names(tmp_path):
    lay(
        tmp_path,
        *("id10001/1zcIwhmdeo4/00001.mp4", "id10001/1zcIwhmdeo4/00002.mp4", "id10002/QanuGhOhb9A/00001.mp4"),
        *("pretrain/5535415699068794046/00001.mp4", "sub/anna.MOV", "notes.txt", "list.csv"),
    )
    pieces = find_pieces([tmp_path])
    assert {piece.name: piece.identity for piece in pieces} == {
        "anna": "anna",
        "id10001_1zcIwhmdeo4_00001": "id10001",
        "id10001_1zcIwhmdeo4_00002": "id10001",
        "id10002_QanuGhOhb9A_00001": "id10002",
        "pretrain_5535415699068794046_00001": "5535415699068794046",
    }
    assert all(piece.is_whole and piece.video.is_absolute() and piece.video.exists() for piece in pieces)
    assert names(tmp_path) == sorted(names(tmp_path))


def test_a_later_file_renames_nothing(tmp_path):
    files = ["a/001.mp4", "b/001.mp4", "a/talk.mp4", "c.mp4"]
    before: dict[Path, str] = {}
    for file in files:
        now = {piece.video: piece.name for piece in find_pieces([lay(tmp_path, file)])}
        assert before.items() <= now.items() and len(now) == len(before) + 1
        before = now


def test_shared_names_are_an_error_that_knows_the_way_out(tmp_path):
    lay(tmp_path, "s1/bbaf2n.mpg", "s2/bbaf2n.mpg")
    with pytest.raises(UserError, match=r"s1/bbaf2n\.mpg and .*s2/bbaf2n\.mpg .* clip 'bbaf2n': give --names path"):
        find_pieces([tmp_path])
    assert names(tmp_path, names="path", identity="top") == ["s1_bbaf2n", "s2_bbaf2n"]
    lay(tmp_path / "case", "x/Anna.mp4", "y/anna.mp4")
    with pytest.raises(UserError, match="clips 'Anna' and 'anna'"):
        find_pieces([tmp_path / "case"])


def test_hidden_links_and_loops(tmp_path):
    """Hidden files and folders are left out, links are followed once, and the way without links gives the name."""
    store = lay(tmp_path / "store", "deep/001.mp4", ".trash/002.mp4", "._001.mp4")
    folder = lay(tmp_path / "in", "z/001.mp4")
    (folder / "store").symlink_to(store)
    (folder / "a_link.mp4").symlink_to(folder / "z" / "001.mp4")
    (folder / "other.mp4").symlink_to(lay(tmp_path, "elsewhere.mp4") / "elsewhere.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (folder / "z" / "loop").symlink_to(folder)
    assert names(folder) == ["other", "store_deep_001", "z_001"]
    assert names(tmp_path / "in" / "store") == ["deep_001"]
    assert len(find_pieces([folder, folder / "z", folder / "z" / "001.mp4"])) == 3


def test_a_folder_that_cannot_be_searched_is_said(tmp_path, monkeypatch, caplog):
    """Root may read everything, so that the system's answer is given here."""
    lay(tmp_path, "open/a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names(tmp_path) == ["a"]
    assert "cannot be searched (Permission denied)" in caplog.text


def test_unusable_names_are_left_out_and_said(tmp_path, caplog):
    lay(tmp_path, "good.mp4", "two\nlines.mp4")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))).touch()
    assert names(tmp_path) == ["good"]
    assert "control character" in caplog.text and "not UTF-8, rename it" in caplog.text
    long = lay(tmp_path / "long", f"{'person' * 20}/{'session' * 20}/001.mp4")
    (piece,) = find_pieces([long])
    (tmp_path / f".{piece.name}.1234567.npy.tmp").touch()  # as files around a clip are called


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        find_pieces([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file or folder"):
        find_pieces([tmp_path / "nowhere.csv"])
    with pytest.raises(UserError, match=r"no videos \(\.3gp"):
        find_pieces([tmp_path])


def test_lists_beside_videos(tmp_path):
    lay(tmp_path, "one.mp4", "id10001/x/00001.mp4")
    (tmp_path / "list.csv").write_text("video,start,stop\nid10001/x/00001.mp4,0,4\nid10001/x/00001.mp4,4,8\n")
    pieces = find_pieces([tmp_path / "one.mp4", tmp_path / "list.csv"])
    assert [(piece.name, piece.start, piece.stop, piece.identity) for piece in pieces] == [
        ("id10001_x_00001_00000000", 0, 4, "id10001"),
        ("id10001_x_00001_00004000", 4, 8, "id10001"),
        ("one", 0, None, "one"),
    ]
    (tmp_path / "again.csv").write_text("video,name\none.mp4,one\n")
    with pytest.raises(UserError, match="would both be clip 'one'"):
        find_pieces([tmp_path / "one.mp4", tmp_path / "again.csv"])


def test_find_videos_takes_stems(tmp_path):
    lay(tmp_path, "a/001.mp4", "b/anna.mkv")
    assert {name: path.name for name, path in find_videos([tmp_path]).items()} == {"001": "001.mp4", "anna": "anna.mkv"}
    lay(tmp_path, "b/001.mp4")
    with pytest.raises(UserError, match="would both be clip '001'"):
        find_videos([tmp_path])
