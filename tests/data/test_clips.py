"""The prepared-clip format: whole or not at all, checked when it is opened, and nearly lossless."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from difftalk_pl.data.clips import (
    Clip,
    ClipRow,
    create_dataset,
    open_clips,
    read_dataset,
    read_rows,
    write_clip,
    write_rows,
)
from difftalk_pl.data.features.mfcc import MFCC
from difftalk_pl.data.files.leftovers import aside_name, remove_leftovers
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError

FRAMES = 12


def frame(number: int, size: int = 32) -> np.ndarray:
    return np.full((size, size, 3), 10 * number, np.uint8)


def parts(**changes) -> dict:
    """Everything that a clip of 12 frames consists of."""
    rng = np.random.default_rng(0)
    return {
        "frames": [frame(number) for number in range(FRAMES)],
        "audio": rng.integers(-9000, 9000, FRAMES * 640).astype(np.int16),
        "landmarks": rng.random((FRAMES, 68, 2)),
        "features": [MFCC()],
        "info": {"source": "here"},
        **changes,
    }


@pytest.fixture
def root(tmp_path) -> Path:
    create_dataset(tmp_path, 32)
    return tmp_path


def test_what_is_written_is_read(root):
    written = parts()
    write_clip(root, "a", **written)
    write_rows(root, [ClipRow("a", "ann", FRAMES, "a.mp4", "ok")])
    (clip,) = open_clips(root)
    assert (clip.name, clip.identity, clip.frames) == ("a", "ann", FRAMES)
    np.testing.assert_array_equal(clip.audio(), written["audio"])
    np.testing.assert_array_equal(clip.landmarks, written["landmarks"].astype(np.float32))
    np.testing.assert_array_equal(clip.features("mfcc"), MFCC()(written["audio"]))
    assert isinstance(clip.landmarks, np.memmap) and isinstance(clip.features("mfcc"), np.memmap)
    assert clip.info() == {"name": "a", "frames": FRAMES, "source": "here"}
    reader = clip.reader()
    assert [round(reader[k].mean() / 10) for k in (11, 0, 5)] == [11, 0, 5]


def test_a_clip_written_again_replaces_the_old_one(root):
    write_clip(root, "a", **parts())
    (root / "clips" / "a" / "features" / "old.npy").write_bytes(b"")
    write_clip(root, "a", **parts(info={"source": "there"}))
    assert Clip(root, "a", FRAMES).info()["source"] == "there"
    assert not (root / "clips" / "a" / "features" / "old.npy").exists()


def test_latents_of_the_old_clip_go_with_it(root):
    write_clip(root, "a", **parts())
    cached = [root / "latents" / "0123abcd-mouth_safe" / f"{name}.npy" for name in ("a", "b")]
    cached[0].parent.mkdir(parents=True)
    for path in cached:
        path.write_bytes(b"")
    (root / "latents" / "notes.txt").write_text("no folder")
    write_clip(root, "a", **parts())
    assert [path.exists() for path in cached] == [False, True]


@pytest.mark.parametrize("stuck", ["a", aside_name("a")], ids=["old", "new"])
def test_a_clip_that_cannot_take_its_place_leaves_what_was_there(stuck, root, monkeypatch):
    write_clip(root, "a", **parts())
    rename = os.rename

    def failing(source, target):
        if source.name == stuck:
            raise PermissionError("not today")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(PermissionError, match="not today"):
        write_clip(root, "a", **parts(info={"source": "there"}))
    assert [path.name for path in (root / "clips").iterdir()] == ["a"]
    assert Clip(root, "a", FRAMES).info()["source"] == "here"


def breaks_half_way():
    yield from (frame(number) for number in range(6))
    raise RuntimeError("no more")


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"frames": breaks_half_way()}, RuntimeError, "no more"),
        ({"frames": []}, UserError, "no frames"),
        ({"frames": [frame(k) for k in range(FRAMES - 1)]}, ValueError, r"a: landmarks \(12, 68, 2\) for 11 frames"),
        ({"landmarks": np.zeros((FRAMES, 67, 2))}, ValueError, r"a: landmarks \(12, 67, 2\)"),
        ({"landmarks": np.full((FRAMES, 68, 2), np.nan)}, ValueError, "a: landmarks are not finite"),
        (
            {"audio": np.zeros(FRAMES * 640 + 1, np.int16)},
            ValueError,
            r"a: audio int16 \(7681,\), expected int16 \(7680,\)",
        ),
        ({"audio": np.zeros(FRAMES * 640, np.float32)}, ValueError, "a: audio float32"),
    ],
)
@pytest.mark.parametrize("there_before", [False, True])
def test_a_clip_that_fails_leaves_nothing_or_what_was_there(root, changes, error, message, there_before):
    if there_before:
        write_clip(root, "a", **parts())
    if "no more" in message:
        changes = {"frames": breaks_half_way()}  # a generator serves once
    with pytest.raises(error, match=message):
        write_clip(root, "a", **parts(**changes))
    assert [path.name for path in (root / "clips").iterdir()] == (["a"] if there_before else [])
    assert not there_before or len(Clip(root, "a", FRAMES).reader()) == FRAMES


SLOW_WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from difftalk_pl.data.clips import write_clip

def frames():
    for number in range(12):
        if number == 6:
            print("half-way", flush=True)
            time.sleep(60)
        yield np.zeros((32, 32, 3), np.uint8)

write_clip(Path(sys.argv[1]), "a", frames=frames(), audio=np.zeros(7680, np.int16),
           landmarks=np.zeros((12, 68, 2)), features=[], info={})
"""


def test_a_killed_writer_leaves_no_clip_and_its_leftovers_go(root):
    writer = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "half-way\n"
    assert remove_leftovers(root) == [], "its writer is alive"
    aside = list((root / "clips").iterdir())
    assert len(aside) == 1 and aside[0].name.startswith(".a.")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not (root / "clips" / "a").exists()
    assert remove_leftovers(root) == [aside[0].name]
    assert list((root / "clips").iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_a_clip_whose_successor_did_not_come_is_kept(there, root):
    """The writer was killed between giving the old clip another name and the new one its own."""
    write_clip(root, "a", **parts())
    dead = 2**22 + 1  # no process
    aside = root / "clips" / f".a.{socket.gethostname().replace('.', '_')}.{dead}.old.tmp"
    (root / "clips" / "a").rename(aside)
    if there:
        write_clip(root, "a", **parts(info={"source": "there"}))
    assert remove_leftovers(root) == [aside.name]
    assert [path.name for path in (root / "clips").iterdir()] == ["a"]
    assert Clip(root, "a", FRAMES).info()["source"] == ("there" if there else "here")


def test_leftovers_of_other_machines_stay(root):
    """A process number says nothing about another machine."""
    elsewhere = root / "clips" / f".a.not-{socket.gethostname()}.1.tmp"
    mine = root / "clips" / f".b.{socket.gethostname()}.{os.getpid()}.tmp"
    for folder in (elsewhere, mine):
        folder.mkdir()
    assert remove_leftovers(root) == [] and elsewhere.exists() and mine.exists()


def test_another_size_is_refused(root):
    assert create_dataset(root, 32).size == 32
    with pytest.raises(UserError, match="holds frames of 32 pixels, not 64"):
        create_dataset(root, 64)


def test_a_folder_that_is_no_dataset_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no dataset\.json.*run prepare or synthesize"):
        open_clips(tmp_path)
    create_dataset(tmp_path, 32)
    with pytest.raises(UserError, match=r"clips\.csv is missing or empty"):
        open_clips(tmp_path)


def test_another_format_is_refused(root):
    path = root / "dataset.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(UserError, match=r"dataset\.json: format 7, this version reads 1"):
        read_dataset(root)


ROWS = [
    ClipRow("b", "bob", 75, "/videos/b, the second.mp4", "ok"),
    ClipRow("a", "ann", 0, 'C:\\my "clips"\\a.mp4', "refused", 'cut off, "moov" missing;\nline two'),
    ClipRow("é 1", "née", 3, "é.mp4", "ok", ""),
]


def test_rows_come_back_sorted_and_whole(root):
    write_rows(root, ROWS)
    assert list(read_rows(root).values()) == sorted(ROWS)
    assert [clip.name for clip in open_clips(root)] == ["b", "é 1"], "refused clips are not opened"


def test_rows_that_fail_leave_the_old_ones(root):
    write_rows(root, ROWS)
    with pytest.raises(TypeError):
        write_rows(root, [ROWS[0], 7])  # type: ignore[list-item]
    assert len(read_rows(root)) == 3
    assert sorted(path.name for path in root.iterdir()) == ["clips", "clips.csv", "dataset.json"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path: Path) -> None:
    np.save(path, np.array([{"not": "numbers"}] * FRAMES, dtype=object), allow_pickle=True)


@pytest.mark.parametrize("damage", [cut, pickled, Path.unlink, lambda path: np.save(path, np.zeros((5, 68, 2)))])
@pytest.mark.parametrize("file", ["landmarks.npy", "features/mfcc.npy"])
def test_damaged_arrays_are_named(root, damage, file):
    write_clip(root, "a", **parts())
    damage(root / "clips" / "a" / file)
    clip = Clip(root, "a", FRAMES)
    with pytest.raises(UserError, match=file):
        clip.landmarks if file == "landmarks.npy" else clip.features("mfcc")


def test_a_video_of_another_length_is_named(root):
    write_clip(root, "a", **parts())
    with pytest.raises(UserError, match=r"video\.mp4: 12 frames, expected 13"):
        Clip(root, "a", FRAMES + 1).reader()


def wandering_photograph() -> list[np.ndarray]:
    photograph = skimage.data.astronaut()
    return [photograph[2 * k : 2 * k + 256, 3 * k : 3 * k + 256] for k in range(FRAMES)]


@pytest.mark.parametrize(
    "frames", [wandering_photograph(), list(perform(0, 5, FRAMES / 25).frames(128))], ids=["photograph", "drawn"]
)
def test_videos_are_nearly_lossless(root, frames):
    """Of brightness. Colours at the very pixel are lost in every file that plays anywhere (4:2:0)."""
    write_clip(root, "a", **parts(frames=frames))
    reader = Clip(root, "a", FRAMES).reader()
    for k, image in enumerate(frames):
        error = (reader[k].astype(float) - image) @ (0.299, 0.587, 0.114)
        assert 10 * np.log10(255**2 / np.square(error).mean()) >= 42, k
        assert np.abs((reader[k].astype(float) - image).mean(axis=(0, 1))).max() < 1, "no shift of colour"
