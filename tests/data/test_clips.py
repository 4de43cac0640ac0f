"""The prepared-clip format: whole or not at all, checked when it is opened, and nearly lossless."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from difftalk_pl.data.clips import (
    Clip,
    create_dataset,
    open_clips,
    read_index,
    verify,
    write_clip,
    write_index,
)
from difftalk_pl.data.features.kinds import MFCC
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
        "features": [MFCC],
        "info": {"source": "here"},
        **changes,
    }


@pytest.fixture
def root(tmp_path) -> Path:
    create_dataset(tmp_path, 32)
    return tmp_path


def test_what_is_written_is_read(root):
    written = parts()
    write_clip(root, "a", identity="ann", **written)
    write_index(root)
    (clip,) = open_clips(root)
    assert (clip.name, clip.identity, clip.frames) == ("a", "ann", FRAMES)
    np.testing.assert_array_equal(clip.audio(), written["audio"])
    np.testing.assert_array_equal(clip.landmarks, written["landmarks"].astype(np.float32))
    np.testing.assert_array_equal(clip.features("mfcc"), MFCC(written["audio"]))
    assert isinstance(clip.landmarks, np.memmap) and isinstance(clip.features("mfcc"), np.memmap)
    assert clip.info().items() >= {"name": "a", "identity": "ann", "frames": FRAMES, "source": "here"}.items()
    reader = clip.reader()
    assert [round(reader[k].mean() / 10) for k in (11, 0, 5)] == [11, 0, 5]


def test_a_clip_written_again_replaces_the_old_one_and_its_latents(root):
    write_clip(root, "a", **parts())
    (root / "clips" / "a" / "features" / "old.npy").write_bytes(b"")
    cached = [root / "latents" / "0123abcd-mouth_safe" / f"{name}.npy" for name in ("a", "b")]
    cached[0].parent.mkdir(parents=True)
    for path in cached:
        path.write_bytes(b"")
    write_clip(root, "a", **parts(info={"source": "there"}))
    assert Clip(root, "a", FRAMES).info()["source"] == "there"
    assert not (root / "clips" / "a" / "features" / "old.npy").exists()
    assert [path.exists() for path in cached] == [False, True]


def test_temporary_folders_of_a_killed_process_are_removed_with_the_next_try(root):
    for name in (".a.0123456789abcdef.tmp", ".a.b.0123456789abcdef.tmp"):
        (root / "clips" / name / "features").mkdir(parents=True)
    write_clip(root, "a", **parts())
    assert {path.name for path in (root / "clips").iterdir()} == {"a", ".a.b.0123456789abcdef.tmp"}


def breaks_half_way():
    yield from (frame(number) for number in range(6))
    raise RuntimeError("no more")


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"frames": breaks_half_way()}, RuntimeError, "no more"),
        ({"frames": []}, UserError, "no frames"),
        ({"frames": [frame(k) for k in range(FRAMES - 1)]}, ValueError, r"a: 11 frames, landmarks \(12, 68, 2\)"),
        ({"audio": np.zeros(FRAMES * 640 + 1, np.int16)}, ValueError, r"a: 12 frames, .* audio \(7681,\)"),
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


def test_a_folder_that_is_no_dataset_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no dataset\.json.*run prepare or synthesize"):
        open_clips(tmp_path)
    create_dataset(tmp_path, 32)
    with pytest.raises(UserError, match=r"clips\.csv is missing or empty"):
        open_clips(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(UserError, match=r"dataset\.json: format 1, this version reads 2; prepare it again"):
        open_clips(tmp_path)


def test_the_index_lists_clips_and_refusals(root):
    """A refusal counts more than the clip of an earlier run; what cannot be read is left out."""
    for name in ("b", "é 1", "old"):
        write_clip(root, name, identity="bob", **parts(info={"source": {"path": "/videos/b, the second.mp4"}}))
    (root / "refused").mkdir()
    for name in ("a.b", "old"):
        record = {"name": name, "identity": "ann", "source": {"path": 'my "a".mp4'}, "reason": 'no "moov",\nline two'}
        (root / "refused" / f"{name}.json").write_text(json.dumps(record))
    (root / "clips" / "damaged").mkdir()
    (root / "clips" / "damaged" / "clip.json").write_text("{")
    write_index(root)
    refused = ["ann", "0", 'my "a".mp4', "refused", 'no "moov",\nline two']
    usable = ["bob", str(FRAMES), "/videos/b, the second.mp4", "ok", ""]
    found = [list(row.values()) for row in read_index(root)]
    assert found == [["a.b", *refused], ["b", *usable], ["old", *refused], ["é 1", *usable]]
    assert [clip.name for clip in open_clips(root)] == ["b", "é 1"]
    assert not list(root.glob(".*"))


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


@pytest.mark.parametrize("file", ["video.mp4", "audio.wav", "landmarks.npy", "features/mfcc.npy"])
def test_verify_names_a_file_that_is_not_what_was_written(root, file):
    write_clip(root, "a", **parts())
    clip = Clip(root, "a", FRAMES)
    verify(clip)
    path = clip.folder / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=file):
        verify(clip)
    with pytest.raises(UserError, match=r"expected .*13"):
        verify(Clip(root, "a", FRAMES + 1))


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
