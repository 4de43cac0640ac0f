"""Faults of the released code's layout: each is refused by name, and none ends the job."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from difftalk_pl.data.legacy.convert import run_legacy_job
from difftalk_pl.data.legacy.jobs import LegacySettings, legacy_jobs
from difftalk_pl.data.legacy.layout import open_layout, pieces, sides
from tests.data.legacy.legacy_layouts import FRAMES, SIDE, convert, edit, remove, resize, shorten


def as_fractions(folder: Path) -> None:
    """Somebody has divided by the side already."""
    for path in folder.iterdir():
        np.savetxt(path, np.loadtxt(path) / SIDE)


def promise(path: Path, shape: tuple[int, ...]) -> None:
    """A header of that shape before no more numbers than there were."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        file.write(bytes(8 * 16 * 29 * 8))


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, windows=np.zeros((8, 16, 29)))


BREAK: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda f: shorten(f / "images/1_9.jpg"), "images/1_9.jpg is damaged (image file is truncated"),
    "no image": (lambda f: (f / "images/1_9.jpg").write_text("?"), "images/1_9.jpg is damaged (cannot identify image"),
    "not square": (lambda f: resize(f / "images/1_9.jpg", (96, 80)), "images/1_9.jpg has 96 x 80 pixels; crop"),
    "67 rows": (
        lambda f: edit(f / "landmarks/1_9.lms", lambda rows: rows[1:]),
        "landmarks/1_9.lms holds 67 rows, expected 68 of `x y`; detect its landmarks again",
    ),
    "not finite": (
        lambda f: edit(f / "landmarks/1_9.lms", lambda rows: ["nan 1", *rows[1:]]),
        "landmarks/1_9.lms holds numbers that are not finite",
    ),
    "no numbers": (
        lambda f: edit(f / "landmarks/1_9.lms", lambda rows: ["x y", *rows[1:]]),
        "landmarks/1_9.lms does not hold lines of `x y`",
    ),
    "fractions": (
        lambda f: as_fractions(f / "landmarks"),
        "face too small: 0.6 pixels from ear to ear, at least 20 are needed",
    ),
    "objects": (
        lambda f: np.save(f / "audio_smooth/1_9.npy", np.array([None]), allow_pickle=True),
        "audio_smooth/1_9.npy cannot be read (Array can't be memory-mapped: Python objects in dtype",
    ),
    "absurd header": (
        lambda f: promise(f / "audio_smooth/1_9.npy", (8, 16, 10**12)),
        "audio_smooth/1_9.npy cannot be read (mmap length is greater than file size); write it anew",
    ),
    "impossible header": (
        lambda f: promise(f / "audio_smooth/1_9.npy", (-8, 16, 29)),
        "audio_smooth/1_9.npy cannot be read (memory mapped length must be positive); write it anew",
    ),
    "empty": (
        lambda f: (f / "audio_smooth/1_9.npy").write_bytes(b""),
        "audio_smooth/1_9.npy cannot be read (No data left in file",
    ),
    "archive": (
        lambda f: archive(f / "audio_smooth/1_9.npy"),
        "audio_smooth/1_9.npy cannot be read (an archive of arrays",
    ),
    "half an archive": (
        lambda f: (f / "audio_smooth/1_9.npy").write_bytes(b"PK\x03\x04?"),
        "audio_smooth/1_9.npy cannot be read (File is not a zip file",
    ),
    "text": (
        lambda f: np.save(f / "audio_smooth/1_9.npy", np.full((8, 16, 29), "a")),
        "audio_smooth/1_9.npy cannot be read (it holds <U1, expected numbers)",
    ),
    "nan": (
        lambda f: np.save(f / "audio_smooth/1_9.npy", np.full((8, 16, 29), np.nan)),
        "audio_smooth/1_9.npy holds numbers that are not finite",
    ),
    "too few": (
        lambda f: remove(f / "images/1_40.jpg", f / "images/1_80.jpg"),
        "at most 49 frames in a row are complete, 2.0 s of 3 s needed; images/1_40.jpg and 1 more of them missing",
    ),
    "nothing": (
        lambda f: remove(*(f / "images").iterdir()),
        "data.txt lists it, but there is no images/1_",
    ),
}


@pytest.mark.parametrize("fault", BREAK)
def test_what_is_broken_is_refused_by_name(layout, tmp_path, fault):
    spoil, reason = BREAK[fault]
    spoil(layout)
    (job, *_) = legacy_jobs(open_layout(layout), tmp_path, LegacySettings(64, 20, 3, ()))
    row = run_legacy_job(job, lambda done, total: None).row
    assert (row.name, row.status, row.frames) == ("1", "refused", 0) and row.reason.startswith(reason), row.reason
    assert not list(tmp_path.glob("clips/*"))


def test_faults_of_the_lists_are_named_by_line_and_end_nothing(layout, tmp_path):
    (layout / "data.txt").write_text(f"1 {FRAMES - 1}\n\none 20\n5 30\n1 20\n")
    (layout / "data_train.txt").write_text("1_1\n1-2\n1_500\n9_3\n")
    shutil.copy(layout / "images" / "1_0.jpg", layout / "images" / "77_0.jpg")
    rows = convert(layout, tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        "1": "ok",
        "5": "refused",
        "HDTF/data.txt": "refused",
        "HDTF/data_train.txt": "refused",
    }
    assert rows["5"]["reason"] == "data.txt lists it, but there is no images/5_*.jpg"
    assert rows["HDTF/data.txt"]["reason"] == (
        "line 3: 'one 20' is not `ID LAST_FRAME`; line 5: video 1 for the second time; "
        "no line for video 77, though images/ has it"
    )
    assert rows["HDTF/data_train.txt"]["reason"] == (
        "line 2: '1-2' is not `ID_FRAME`; frames that do not exist (2): 1_500, 9_3"
    )
    (layout / "data.txt").write_text(f"1 {FRAMES - 1}\n")  # mended: nothing of it remains
    shutil.copy(layout / "landmarks" / "1_0.lms", layout / "landmarks" / "77_0.lms")
    assert "5" not in convert(layout, tmp_path / "out")


def test_frames_beyond_the_list_are_left_out_and_a_short_one_is_said(layout, tmp_path):
    (layout / "data.txt").write_text("1 99\n")
    (piece,) = [p for p in pieces(open_layout(layout), 3) if not p.problem]
    assert (piece.name, piece.first, piece.last) == ("1", 0, 99)
    assert piece.note == "30 frames are left out: data.txt says that frame 99 is the last"
    (layout / "data.txt").write_text("1 500\n")
    (piece,) = [p for p in pieces(open_layout(layout), 3) if not p.problem]
    assert piece.note == "the files end at frame 129, data.txt says 500"
    remove(layout / "images/1_0.jpg", layout / "landmarks/1_0.lms", layout / "audio_smooth/1_0.npy")
    (layout / "data.txt").write_text("1 130\n")  # the released code needs neither frame 0 nor the last one
    (piece,) = [p for p in pieces(open_layout(layout), 3) if not p.problem]
    assert (piece.first, piece.last, piece.note) == (1, 129, "")


def test_lists_become_sides_only_for_whole_people(layout, caplog):
    """The lists may lie beside the folder, as the released code has them."""
    (layout / "data_train.txt").unlink()
    (layout.parent / "data_test.txt").write_text("".join(f"1_{k}\n" for k in range(1, FRAMES)))
    found = open_layout(layout)
    assert sides(found, pieces(found, 3)) == {"test": ["1"]}
    (layout.parent / "data_test.txt").write_text("".join(f"1_{k}\n" for k in range(1, 100)))
    found = open_layout(layout)
    with caplog.at_level(logging.WARNING):
        assert sides(found, pieces(found, 3)) == {"test": []}
    assert "1: not on the test side, data_test.txt lists 99 of its 128 frames" in caplog.text
