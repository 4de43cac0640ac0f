"""The released code's data layout, as others prepared it and as it is drawn here, through the whole command."""

import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.datamodule import HDTFDataModule, Loading
from difftalk_pl.data.loading.splits import Split
from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.speech.features import FeatureModel, record_models
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from tests.data.legacy.legacy_layouts import FRAMES, convert, edit, resize, shorten, steps_of, table


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_a_community_forks_layout(legacy_layout, tmp_path):
    """Frames and landmarks are the layout's; its windows are not used, and what is wrong with them is said."""
    row = convert(legacy_layout, tmp_path, size=256, min_face=64)["1"]
    assert (row["status"], row["identity"], row["frames"]) == ("ok", "1", "200")
    assert row["reason"].startswith("silent; no audio features, so for stage 1 alone; audio_smooth is not used: ")
    assert "share 15 of 16 steps, expected 14: 1 a frame, so that a window spans 0.64 s, not 0.32 s" in row["reason"]
    assert "slots 0, 1, 2, 3, 5, 6, 7: not the windows" in row["reason"]
    (clip,) = open_clips(tmp_path)
    assert clip.info()["audio"] == "none in the legacy layout" and not clip.audio().any()
    assert list((clip.folder / "features").iterdir()) == []
    data = HDTFDataModule(tmp_path, contents="frames", split=Split(val=0, test=0), loading=Loading(4, 4, 0))
    data.setup("fit")
    assert len(data.windows["train"]) == 200
    for k in (0, 77, 199):
        with Image.open(legacy_layout / "images" / f"1_{k}.jpg") as image:
            expected = np.asarray(image.resize((256, 256), Image.Resampling.LANCZOS))
        image = data.windows["train"][k]["image"].numpy().transpose(1, 2, 0) * 127.5 + 127.5
        assert psnr(image, expected) >= 40
        points = np.loadtxt(legacy_layout / "landmarks" / f"1_{k}.lms")
        np.testing.assert_allclose(clip.landmarks[k] * 562, points + 0.5, atol=1e-3)
    assert (tmp_path / "splits" / "train.txt").read_text() == "1\n"
    with pytest.raises(
        UserError, match=r"mfcc\.npy: no such features; give its sound by prepare --from-legacy .*legacy"
    ):
        clip.features("mfcc")


def test_right_windows_are_rebuilt_exactly(drawn_layout, tmp_path):
    """The DataModule gives what the layout's own files hold, bit by bit; the last step, which none shows, is zero."""
    row = convert(drawn_layout, tmp_path)["1"]
    assert row["reason"] == (
        f"silent; features: deepspeech; {2 * FRAMES} steps rebuilt from {FRAMES} windows, {FRAMES} of them exact; "
        "the sound begins where it must; the last step, which no window shows, is zero"
    )
    (clip,) = open_clips(tmp_path)
    np.testing.assert_array_equal(clip.features("deepspeech")[:-1], steps_of(FRAMES)[:-1].astype(np.float32))
    split = Split(train=tmp_path / "splits" / "train.txt", val=0, test=0)
    data = HDTFDataModule(tmp_path, contents="images", features="deepspeech", split=split, loading=Loading(4, 4, 0))
    data.setup("fit")
    assert len(data.windows["train"]) == FRAMES
    for k in range(FRAMES):
        expected = np.load(drawn_layout / "audio_smooth" / f"1_{k}.npy").astype(np.float32)
        np.testing.assert_array_equal(data.windows["train"].window(0, k)["audio"].numpy(), expected)
    assert [path.name for path in (clip.folder / "features").iterdir()] == ["deepspeech.npy"]


def test_a_gap_divides_a_video_and_names_what_is_missing(layout, tmp_path):
    (layout / "landmarks" / "1_20.lms").unlink()
    for kind, suffix in (("images", "jpg"), ("landmarks", "lms"), ("audio_smooth", "npy")):
        (layout / kind / f"1_70.{suffix}").unlink()
    rows = convert(layout, tmp_path / "out", min_seconds=1)
    assert rows.pop("HDTF/data_train.txt")["reason"] == "frames that do not exist (1): 1_70"
    assert set(rows) == {"1_from_21", "1_from_71"}
    assert {row["identity"] for row in rows.values()} == {"1"}
    assert [row["frames"] for row in rows.values()] == ["49", "59"]
    note = "images/1_70.jpg missing; landmarks/1_20.lms and 1 more of them missing; audio_smooth/1_70.npy missing"
    assert all(row["reason"].endswith(f"{note}; 20 frames between gaps are too few to use") for row in rows.values())
    steps = steps_of(FRAMES).astype(np.float32)
    for clip in open_clips(tmp_path / "out"):
        first = clip.info()["source"]["frames"][0]
        assert clip.name == f"1_from_{first}"
        known = np.ones((2 * clip.frames, 1), np.float32)
        known[-1] = first + clip.frames < FRAMES  # the video's very last step is in no window
        np.testing.assert_array_equal(clip.features("deepspeech"), steps[2 * first : 2 * (first + clip.frames)] * known)
    assert (tmp_path / "out" / "splits" / "train.txt").read_text().split() == ["1_from_21", "1_from_71"]


def test_a_mended_gap_puts_the_pieces_out_of_use(layout, tmp_path, drawn_layout):
    (layout / "images" / "1_60.jpg").unlink()
    root = tmp_path / "out"
    assert {"1_from_0", "1_from_61"} < set(convert(layout, root, min_seconds=1))
    shutil.copy(drawn_layout / "images" / "1_60.jpg", layout / "images")
    rows = convert(layout, root, min_seconds=1)
    assert {name: row["status"] for name, row in rows.items()} == {
        "1": "ok",
        "1_from_0": "refused",
        "1_from_61": "refused",
    }
    assert "no longer makes this clip" in rows["1_from_0"]["reason"]
    assert (root / "splits" / "train.txt").read_text() == "1\n"


def test_a_second_run_leaves_everything_alone_until_a_file_changes(layout, tmp_path, capfd):
    root = tmp_path / "out"
    convert(layout, root)
    before = {path: path.stat().st_mtime_ns for path in (root / "clips").rglob("*")}
    convert(layout, root)
    assert {path: path.stat().st_mtime_ns for path in (root / "clips").rglob("*")} == before
    shorten(layout / "images" / "1_9.jpg")
    with pytest.raises(UserError):
        convert(layout, root)
    capfd.readouterr()
    with pytest.raises(UserError):
        convert(layout, root)
    assert "still refused" in capfd.readouterr().err


def test_without_windows_and_with_sides_that_differ(layout, tmp_path):
    """No audio_smooth is no hindrance for stage 1; every image is scaled by its own side, as the released code does."""
    shutil.rmtree(layout / "audio_smooth")
    resize(layout / "images" / "1_3.jpg", (192, 192))
    edit(
        layout / "landmarks" / "1_3.lms",
        lambda rows: [" ".join(str(2 * float(v) + 0.5) for v in r.split()) for r in rows],
    )
    row = convert(layout, tmp_path / "out")["1"]
    assert row["reason"] == (
        "silent; no audio features, so for stage 1 alone; audio_smooth is not used: no audio_smooth/1_*.npy"
    )
    (clip,) = open_clips(tmp_path / "out")
    np.testing.assert_allclose(clip.landmarks, perform(0, 1, FRAMES / 25).landmarks(), atol=1e-5)
    assert clip.info()["source"]["sides"] == [96, 192]


def write_sound(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.astype("<i2").tobytes())


def test_sound_can_be_given(layout, tmp_path):
    """The piece's part of it; MFCC come from it, DeepSpeech's steps from the layout."""
    (tmp_path / "sound").mkdir()
    sound = np.random.default_rng(0).integers(-3000, 3000, 640 * (FRAMES + 10)).astype(np.int16)
    for k in range(5):
        (layout / "images" / f"1_{k}.jpg").unlink()
    with pytest.raises(UserError, match="no clip could be prepared"):
        convert(layout, tmp_path / "out", audio=tmp_path / "sound")
    assert table(tmp_path / "out")["1"]["reason"].startswith(f"no 1.wav in {tmp_path / 'sound'}, nor .flac")
    write_sound(tmp_path / "sound" / "1.wav", sound[: 640 * 100])
    with pytest.raises(UserError, match="no clip could be prepared"):
        convert(layout, tmp_path / "out", audio=tmp_path / "sound")
    assert "1.wav: ends at 4.0 s, but frame 129 is at 5.2 s" in table(tmp_path / "out")["1"]["reason"]
    write_sound(tmp_path / "sound" / "1.wav", sound)
    row = convert(layout, tmp_path / "out", audio=tmp_path / "sound")["1"]
    assert row["reason"].startswith("frame 5 is taken to be at 0.20 s of the sound; features: mfcc, deepspeech; ")
    (clip,) = open_clips(tmp_path / "out")
    np.testing.assert_array_equal(clip.audio(), sound[5 * 640 : FRAMES * 640])
    assert clip.features("mfcc").shape == (250, 26) and clip.features("deepspeech").shape == (250, 29)


def test_steps_of_unknown_origin_do_not_join_those_of_a_known_model(drawn_layout, tmp_path):
    (tmp_path / "clips").mkdir(parents=True)
    record_models(tmp_path, {"deepspeech": FeatureModel("output_graph.pb", "ab" * 32, 29)})
    with pytest.raises(UserError, match=r"has deepspeech features made with output_graph\.pb .* give another --out"):
        convert(drawn_layout, tmp_path)


def test_usage(drawn_layout, tmp_path, capsys):
    for arguments in ([], [str(tmp_path), "--from-legacy", str(drawn_layout)]):
        with pytest.raises(SystemExit) as stop:
            main(["prepare", *arguments, "--out", str(tmp_path / "out")])
        assert stop.value.code == 2
        assert "or --from-legacy DIR in their place, and not both" in capsys.readouterr().err
    with pytest.raises(UserError, match="--audio goes with --from-legacy"):
        prepare([drawn_layout], tmp_path / "out", audio=drawn_layout)
    with pytest.raises(UserError, match=r"no images; the released code's layout has images/, landmarks/"):
        convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_converts(drawn_layout, tmp_path, capfd):
    arguments = ["--from-legacy", str(drawn_layout), "--out", str(tmp_path), "--size", "64", "--min-face", "20"]
    assert main(["prepare", *arguments, "--overlay", str(tmp_path / "look")]) == 0
    said = capfd.readouterr().err
    assert "silent" in said and "holds no sound" in said.replace("\n", " ")
    assert json.loads((tmp_path / "clips" / "1" / "clip.json").read_text())["audio"] == "none in the legacy layout"
    assert (tmp_path / "look" / "1.png").exists()
