"""score against a prepared dataset: its clips as they are, and the protocol of `test`."""

import json
import shutil

import numpy as np
import pytest

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.masks import MaskPolicy
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.judge import Measuring
from difftalk_pl.evaluation.score import score
from difftalk_pl.evaluation.score_pairs import How, open_pair, pair_up, read_chunks
from difftalk_pl.media.writer import write_video
from tests.tables import rows, shown

HOW = How(MaskPolicy("mouth_safe"), "as prepared", "own", None)


@pytest.fixture
def copies(prepared, tmp_path):
    """Videos of two of the dataset's clips, one of them shorter, and one of nobody."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for clip, frames in zip(open_clips(prepared), (20, 8)):
        reader = clip.reader()
        write_video(folder / f"{clip.name}.mp4", (reader[k] for k in range(frames)), crf=5, audio=clip.audio())
        reader.close()
    shutil.copy(folder / "synthetic_000.mp4", folder / "nobody.mp4")
    return folder


def scored(videos, reference, out, **options):
    measuring = Measuring(lpips=None, faces=False)
    score([videos], [reference], out, method="copies", device="cpu", measuring=measuring, **options)
    return json.loads(out.read_text())


def test_clips_come_with_their_own_frames_landmarks_and_sound(prepared, copies):
    pair = {pair.name: pair for pair in pair_up([copies], [prepared])}["synthetic_000"]
    clip = pair.reference
    assert isinstance(clip, Clip)
    footage = open_pair(pair, HOW)
    assert footage.frames == 20 and footage.left == {"video": 0, "reference": clip.frames - 20}
    assert np.array_equal(footage.landmarks, clip.landmarks[:20]), "no detection"
    assert np.array_equal(footage.sounds[1], clip.audio()[: 20 * 640])
    true = np.concatenate([true for _, true in read_chunks(pair, footage)])
    reader = clip.reader()
    assert len(true) == 20 and all(np.array_equal(true[k], reader[k]) for k in (0, 9, 19))
    reader.close()


def test_only_the_clips_that_videos_name_are_wanted(prepared, copies, tmp_path):
    content = scored(copies, prepared, tmp_path / "out.json")
    assert set(content["methods"]["copies"]["per_clip"]) == {"nobody", "synthetic_000", "synthetic_001"}
    assert content["clips"]["scored"] == 2 and "no reference for it" in content["clips"]["reasons"]["nobody"]
    assert content["methods"]["copies"]["overall"]["psnr"] > 35
    assert content["protocol"]["data"]["frame_size"] == 64
    assert content["protocol"]["data"]["crop"] == content["protocol"]["data"]["landmarks"] == "as prepared"


def test_a_damaged_clip_of_the_dataset_fails_alone(prepared, copies, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(prepared, root)
    landmarks = np.load(root / "clips" / "synthetic_000" / "landmarks.npy")
    np.save(root / "clips" / "synthetic_000" / "landmarks.npy", np.full_like(landmarks, np.nan))
    content = scored(copies, root, tmp_path / "out.json")
    assert content["clips"]["scored"] == 1 and "not finite" in content["clips"]["reasons"]["synthetic_000"]
    sound = root / "clips" / "synthetic_001" / "audio.wav"
    sound.write_bytes(sound.read_bytes()[:30])
    with pytest.raises(UserError, match="none of 3 clips"):
        scored(copies, root, tmp_path / "out.json")
    assert "audio.wav" in json.loads((tmp_path / "out.json").read_text())["clips"]["reasons"]["synthetic_001"]


def test_a_dataset_stands_alone_and_is_not_cut_again(prepared, copies, tmp_path):
    with pytest.raises(UserError, match="--crop face: the clips of a prepared dataset are cut already"):
        scored(copies, prepared, tmp_path / "out.json", crop="face")
    with pytest.raises(UserError, match="one prepared dataset alone"):
        pair_up([copies], [prepared, copies])


def test_predictions_that_are_scored_stand_in_one_group_with_test(runner, codec, prepared, capsys):
    over = {
        "model": {"init_args": {"autoencoder": str(codec)}},
        "data": {"min_reference_gap": 20, "test_frames": 8},
    }
    for command in ("fit", "test", "predict"):
        runner(command, "diffusion", "talk", over)
    run = runner.folder / "talk"
    out = runner.folder / "predicted.json"
    measuring = Measuring(faces=False)
    score([run / "predictions"], [prepared], out, method="predicted", measuring=measuring, frames=8, device="cpu")
    ours, theirs = json.loads((run / "results.json").read_text()), json.loads(out.read_text())
    assert theirs["protocol"]["data"] == ours["protocol"]["data"]
    assert theirs["protocol_hash"] == ours["protocol_hash"] and theirs["clips"]["frames_left_out"] == {}
    known, found = (content["methods"] for content in (ours, theirs))
    assert found["ground truth"]["per_clip"].keys() == known["model"]["per_clip"].keys()
    for measure, slack in (("psnr", 1.0), ("mouth_psnr", 1.0), ("opening_correlation", 0.1)):
        assert found["predicted"]["overall"][measure] == pytest.approx(known["model"]["overall"][measure], abs=slack)
    capsys.readouterr()
    text = shown(capsys, run, out)
    assert "not comparable" not in text and "*protocol" not in text and "Generated differently" in text
    marked = [name for name, cells in rows(text).items() if "**" in cells[0] or "<u>" in cells[0]]
    assert marked == ["talk: model", "predicted: predicted"]
