"""Clips that cannot be judged cost themselves alone, and never in silence."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from difftalk_pl.callbacks.evaluation import Evaluation
from difftalk_pl.errors import UserError
from difftalk_pl.training.diffusion import DiffusionTraining
from tests.callbacks.test_evaluation import logged, over, results
from tests.runner import Runner


@pytest.fixture
def broken(runner, prepared, tmp_path):
    """A copy of the dataset, whose clips may be damaged."""
    root = tmp_path / "broken"
    shutil.copytree(prepared, root)
    runner.data = root
    return root / "clips" / "synthetic_001"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def replace(path):
    path.write_bytes(b"something else")


def odd(path):
    path.write_bytes(path.read_bytes()[:-1])


def not_finite(path):
    landmarks = np.load(path)
    landmarks[5] = np.nan
    np.save(path, landmarks)


def other_points(path):
    np.save(path, np.load(path)[:, :, :1])


DAMAGES = [
    ("video.mp4", cut, 0),
    ("video.mp4", cut, 1),
    ("audio.wav", cut, 0),
    ("audio.wav", replace, 0),
    ("audio.wav", odd, 0),
    ("audio.wav", Path.unlink, 0),
    ("landmarks.npy", not_finite, 0),
    ("landmarks.npy", other_points, 0),
    ("landmarks.npy", cut, 0),
    ("features/mfcc.npy", cut, 1),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared, codec):
    """A diffusion run of a step, to be tested on other data."""
    small = Runner(tmp_path_factory.mktemp("trained"), prepared)
    small("fit", "diffusion", "run", {**over(codec, every=0), **images(["synthetic_003"])})
    return small.checkpoint("run")


def images(test, **more):
    split = {"train": ["synthetic_000"], "val": ["synthetic_002"], "test": test}
    return {"data": {"contents": "images", "test_frames": 8, "split": split, **more}}


@pytest.mark.parametrize(("file", "damage", "workers"), DAMAGES)
def test_a_clip_that_cannot_be_read_costs_itself_alone(runner, codec, trained, broken, file, damage, workers):
    damage(broken / file)
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained)}
    settings |= images(["synthetic_001", "synthetic_003"], loading={"workers": workers})
    runner("test", "diffusion", "run", settings)
    content = results(runner.folder / "run")
    assert content["clips"]["not_scored"] == ["synthetic_001"] and content["clips"]["scored"] == 1
    reason = content["clips"]["reasons"]["synthetic_001"]
    assert Path(file).name in reason and "\n" not in reason and "Traceback" not in reason
    assert set(content["methods"]) == {"ground truth", "model", "codec", "shuffled audio"}
    for method in content["methods"].values():
        assert method["failed"]["ssim"] == content["clips"]["reasons"] and method["undefined"]["ssim"] == 1
        assert method["per_clip"]["synthetic_003"]["ssim"] is not None


def test_features_of_another_width_cost_their_clip_alone(runner, codec, trained, broken):
    path = broken.with_name("synthetic_003") / "features" / "mfcc.npy"
    np.save(path, np.load(path).repeat(2, axis=1))
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained)}
    runner("test", "diffusion", "run", settings | images(["synthetic_001", "synthetic_003"]))
    clips = results(runner.folder / "run")["clips"]
    assert clips["not_scored"] == ["synthetic_003"] and clips["scored"] == 1
    assert "52 channels, the model takes 26" in clips["reasons"]["synthetic_003"]


def test_where_every_clip_fails_the_methods_stand_and_the_command_fails(runner, codec, trained, broken):
    (broken / "audio.wav").unlink()
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained), **images(["synthetic_001"])}
    with pytest.raises(UserError, match=r"none of 1 clips could be judged, .*audio\.wav"):
        runner("test", "diffusion", "run", settings)
    methods = results(runner.folder / "run")["methods"]
    assert list(methods) == ["ground truth", "model", "codec", "shuffled audio"]
    assert methods["model"]["overall"]["psnr"] is None and methods["model"]["failed"]["psnr"].keys() == {
        "synthetic_001"
    }


def test_a_damaged_clip_does_not_end_a_fit(runner, codec, broken):
    (broken / "audio.wav").unlink()
    settings = over(codec, clips=2, seconds=0.2, faces=False)
    settings |= images(["synthetic_003"], val_frames=4)
    settings["data"]["split"] = {"train": ["synthetic_000"], "val": ["synthetic_001", "synthetic_002"], "test": []}
    runner("fit", "diffusion", "run", settings)
    rows = [row for row in logged(runner.folder / "run").values() if "val/psnr" in row]
    assert [row["val/failed_clips"] for row in rows] == [1, 1]


def test_a_wrong_setting_is_no_failure_of_clips(runner, codec, trained):
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained), **images(["synthetic_003"])}
    settings["model"]["init_args"]["sampler"] = {"steps": 0}
    with pytest.raises(UserError, match="steps"):
        runner("test", "diffusion", "run", settings)
    assert not (runner.folder / "run" / "results.json").exists()


def test_frames_that_are_no_pictures_have_no_scores(runner, codec, trained, monkeypatch):
    generate = DiffusionTraining.generate

    def broken_model(self, window, steps=None, memory=None):
        return generate(self, window, steps, memory) | {"model": window["image"] * float("nan")}

    monkeypatch.setattr(DiffusionTraining, "generate", broken_model)
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained), **images(["synthetic_003"])}
    with pytest.raises(UserError, match="model: frames with numbers that are not finite"):
        runner("test", "diffusion", "run", settings)


def test_pictures_that_cannot_be_written_cost_no_scores(runner, codec, trained):
    (runner.folder / "run").mkdir()
    (runner.folder / "run" / "samples").write_text("a file in the folder's place")
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained), **images(["synthetic_003"])}
    runner("test", "diffusion", "run", settings)
    assert results(runner.folder / "run")["clips"]["scored"] == 1


@pytest.mark.parametrize(("name", "value"), [("clips", 0), ("clips", -1), ("seconds", -3), ("every", -1), ("steps", 0)])
def test_odd_settings_are_known_at_the_start(name, value):
    with pytest.raises(UserError, match=rf"Evaluation: {name} is {value}, expected"):
        Evaluation(**{name: value})


def test_people_seen_in_training_are_named_in_validate_too(runner, codec, trained):
    settings = {**over(codec, every=0, faces=False), "ckpt_path": str(trained), **images([], val_frames=4)}
    settings["data"]["split"] = {"train": ["synthetic_003"], "val": ["synthetic_000"], "test": []}
    runner("validate", "diffusion", "run", settings)
    assert results(runner.folder / "run", "results_val.json")["clips"]["seen_in_training"] == ["synthetic_000"]
