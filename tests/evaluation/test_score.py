"""score on drawn faces that dlib finds: pairing, clocks, crops, failures, and prepared datasets."""

import json

import numpy as np
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import Measuring
from difftalk_pl.evaluation.score import open_pair, pair_up, score
from difftalk_pl.media.writer import write_video

SIZE = 128
PERSON = perform(seed=0, number=900, seconds=1.2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """true: a, b, c at 1.2 s; ours: a 0.4 s shorter, silent and darker, b broken, d without a reference."""
    root = tmp_path_factory.mktemp("score")
    frames = list(PERSON.frames(SIZE))
    for folder in ("true", "ours"):
        (root / folder).mkdir()
    for name in ("a", "b", "c"):
        write_video(root / "true" / f"{name}.mp4", iter(frames), crf=12, audio=PERSON.audio, rate=16000)
    darker = (np.clip(frame.astype(int) - 20, 0, 255).astype(np.uint8) for frame in frames[:20])
    write_video(root / "ours" / "a.mp4", darker, crf=12)
    (root / "ours" / "b.mp4").write_bytes(b"not a video")
    write_video(root / "ours" / "d.mp4", iter(frames), crf=12)
    return root


def run(videos, reference, out, **options):
    measuring = Measuring(lpips=None, faces=False)
    score(videos, reference, out, device="cpu", measuring=measuring, **{"method": "m"} | options)
    return json.loads(out.read_text())


def opened(video, reference, crop="whole", audio="own", limit=None):
    (pair,) = pair_up([video], [reference])
    return open_pair(pair, crop, audio, limit)


def test_folders_are_paired_by_name_and_what_fails_is_counted_with_its_reason(folders, tmp_path):
    content = run([folders / "ours"], [folders / "true"], tmp_path / "out.json", method="")
    assert content["clips"]["scored"] == 1 and content["clips"]["not_scored"] == ["b", "c", "d"]
    reasons = content["clips"]["reasons"]
    assert "b.mp4" in reasons["b"] and "no video for it" in reasons["c"] and "no reference for it" in reasons["d"]
    ours = content["methods"]["ours"]
    assert ours["per_clip"]["a"]["frames"] == 20 and ours["failed"]["psnr"] == {name: reasons[name] for name in "bcd"}
    assert ours["overall"]["psnr"] == pytest.approx(20 * np.log10(255 / 20), abs=1), "drawn 20 darker"
    assert ours["overall"]["mouth_psnr"] is not None and content["methods"]["ground truth"]["overall"]["ssim"] > 0.999
    assert content["clips"]["frames_left_out"] == {"a": {"video": 0, "reference": 10}}
    whole = run([folders / "true"], [folders / "true"], tmp_path / "whole.json", frames=3)
    assert whole["protocol"]["data"]["frame_size"] == SIZE and whole["clips"]["failed"] == 0
    assert content["protocol"]["data"] == whole["protocol"]["data"] | {"frames_per_clip": None}


def test_frames_are_compared_at_the_same_times_on_both_clocks(folders, tmp_path):
    """At 50 frames a second every drawn frame is shown twice."""
    twice = (frame for frame in PERSON.frames(SIZE) for _ in range(2))
    write_video(tmp_path / "fast.mp4", twice, fps=50, crf=12)
    content = run([tmp_path / "fast.mp4"], [folders / "true" / "a.mp4"], tmp_path / "out.json")
    assert content["methods"]["m"]["overall"]["psnr"] > 35 and content["clips"]["frames_left_out"] == {}


def test_landmarks_and_sounds_are_those_of_the_reference_and_of_each_video(folders):
    footage = opened(folders / "ours" / "a.mp4", folders / "true" / "a.mp4")
    drawn = PERSON.landmarks()[:20]
    assert np.abs(footage.landmarks[:, 27:48] - drawn[:, 27:48]).mean() < 0.02, "eyes and nose where they were drawn"
    own, true = footage.sounds
    assert own is None and true.shape == (20 * 640,) and np.abs(true.astype(int)).max() > 500
    own, true = opened(folders / "ours" / "a.mp4", folders / "true" / "a.mp4", audio="reference", limit=8).sounds
    assert np.array_equal(own, true) and len(own) == 8 * 640


def test_the_square_around_the_face_is_cut_from_both(folders, tmp_path):
    frames = [np.pad(frame, ((0, 0), (40, 88), (0, 0))) for frame in PERSON.frames(SIZE)][:10]
    write_video(tmp_path / "wide.mp4", iter(frames), crf=12)
    footage = opened(tmp_path / "wide.mp4", tmp_path / "wide.mp4", crop="face")
    ((video, true),) = footage.chunks()
    assert true.shape[1] == true.shape[2] <= SIZE and np.array_equal(video, true)
    assert footage.landmarks.min() > 0 and footage.landmarks.max() < 1
    with pytest.raises(UserError, match="expected a square; --crop face"):
        opened(tmp_path / "wide.mp4", tmp_path / "wide.mp4")
    with pytest.raises(UserError, match="256 x 128, its reference 128 x 128; scale"):
        opened(tmp_path / "wide.mp4", folders / "true" / "a.mp4")


def test_a_reference_without_a_face_has_no_measures_of_the_mouth(tmp_path):
    write_video(tmp_path / "wall.mp4", (np.full((SIZE, SIZE, 3), level, np.uint8) for level in (9, 50, 20)))
    failed = run([tmp_path / "wall.mp4"], [tmp_path / "wall.mp4"], tmp_path / "out.json")["methods"]["m"]["failed"]
    assert "no face" in failed["mouth_psnr"]["wall"] and "psnr" not in failed, "the whole frame is measured"


@pytest.mark.parametrize(("kind", "side"), [("empty", "reference"), ("cut", "video"), ("garbage", "reference")])
def test_a_damaged_file_costs_only_its_clip(folders, tmp_path, kind, side):
    good, bad = folders / "true" / "a.mp4", tmp_path / "bad.mp4"
    content = good.read_bytes()
    half = len(content) // 2
    garbage = content[:1000] + bytes(half - 1000) + content[half:]
    bad.write_bytes({"empty": b"", "cut": content[:half], "garbage": garbage}[kind])
    videos, references = ([bad, good], [good, good]) if side == "video" else ([good, good], [bad, good])
    clips = run(videos, references, tmp_path / "out.json", frames=30)["clips"]
    assert clips["scored"] == 1 and "bad.mp4" in next(iter(clips["reasons"].values()))


def test_a_prepared_dataset_is_compared_as_it_was_prepared(prepared, tmp_path):
    clip, folder = open_clips(prepared)[0], tmp_path / "copies"
    reader = clip.reader()
    for name, frames in ((clip.name, 20), ("nobody", 8)):
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{name}.mp4", (reader[k] for k in range(frames)), crf=5, audio=clip.audio())
    footage = open_pair({pair.name: pair for pair in pair_up([folder], [prepared])}[clip.name], "whole", "own", None)
    assert np.array_equal(footage.landmarks, clip.landmarks[:20]) and footage.left_out["reference"] == clip.frames - 20
    true = np.concatenate([true for _, true in footage.chunks()])
    assert len(true) == 20 and all(np.array_equal(true[k], reader[k]) for k in (0, 9, 19))
    content = run([folder], [prepared], tmp_path / "out.json")
    assert list(content["methods"]["m"]["per_clip"]) == ["nobody", clip.name] and content["clips"]["scored"] == 1
    assert content["methods"]["m"]["overall"]["psnr"] > 35
    data = content["protocol"]["data"]
    assert data["frame_size"] == 64 and data["crop"] == data["landmarks"] == "as prepared"


def test_the_command_takes_several_references_and_fails_where_nothing_is_scored(folders, tmp_path, capsys):
    out = tmp_path / "out.json"
    paths = [str(folders / name) for name in ("true/a.mp4", "true/c.mp4")]
    options = ["--out", str(out), "--measuring.lpips", "null", "--frames", "2", "--device", "cpu", "--method", "copy"]
    assert main(["score", *paths, "--reference", *paths, *options]) == 0
    assert json.loads(out.read_text())["clips"]["scored"] == 2
    assert main(["score", str(folders / "ours/b.mp4"), "--reference", paths[0], *options]) == 1
    assert "none of 1 clips could be scored" in capsys.readouterr().err
