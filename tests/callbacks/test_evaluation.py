"""Evaluation through the real command line: what it logs, writes, counts and shows."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from difftalk_pl.callbacks import judging
from difftalk_pl.callbacks.evaluation import Evaluation
from difftalk_pl.callbacks.sheets import contact_sheet, side_by_side, to_pixels
from difftalk_pl.data.clips import read_rows, write_rows
from difftalk_pl.data.video import probe
from difftalk_pl.errors import UserError
from difftalk_pl.stages.diffusion import DiffusionTraining
from difftalk_pl.stages.judge import ALL
from tests.runner import CALLBACKS, TRAINER, Runner
from tests.wandb_records import history, read_wandb

EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.6}}


def evaluated(**arguments):
    """The callbacks of the tests with an Evaluation of these arguments."""
    mine = {"class_path": f"{CALLBACKS}evaluation.Evaluation", "init_args": {"lpips": None, **arguments}}
    return [mine if one["class_path"].endswith(".Evaluation") else one for one in TRAINER["callbacks"]]


def over(codec, **arguments):
    callbacks = evaluated(**arguments)
    return {
        "model": {"init_args": {"autoencoder": str(codec)}},
        "data": {"val_frames": 10, "test_frames": 8},
        "trainer": {"callbacks": [*callbacks, EMA]},
    }


def logged(run: Path) -> dict[int, dict[str, float]]:
    """metrics.csv by step."""
    rows: dict[int, dict[str, float]] = {}
    for path in sorted(run.glob("metrics/version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            rows.setdefault(int(row["step"]), {}).update({k: float(v) for k, v in row.items() if v and k != "step"})
    return rows


def results(run: Path, name="results.json"):
    return json.loads((run / name).read_text())


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


def test_while_fit_runs_a_few_clips_are_judged_with_the_averaged_weights(runner, codec):
    """The last validation stands at the weights of last.ckpt, which are the averages: `validate` finds them again."""
    settings = over(codec, clips=1, seconds=0.4, faces=False)
    runner("fit", "diffusion", "talk", settings)
    run = runner.folder / "talk"
    steps = {step: row for step, row in logged(run).items() if "val/psnr" in row}
    assert len(steps) == 2, "at both validations"
    last = steps[max(steps)]
    assert {"val/ssim", "val/mouth_psnr", "val/codec/psnr", "val/ground_truth/ssim", "val/jitter_pixels"} <= {*last}
    assert "val/psnr" in last and "val/ground_truth/psnr" not in last, "what is infinite is no number"
    assert "val/shuffled_audio/psnr" not in last, "the control takes as long as the model"
    assert not (run / "results.json").exists()
    runner("validate", "diffusion", "talk", settings)
    found = results(run, "results_val.json")["methods"]
    assert found["model"]["overall"]["psnr"] == pytest.approx(last["val/psnr"], abs=1e-4)
    assert found["model"]["per_clip"]["synthetic_002"]["frames"] == 10 and "shuffled audio" in found
    keys = {key for row in logged(run).values() for key in row}
    assert "validate/psnr" in keys, "no point of the curve of fit"
    assert len([row for row in logged(run).values() if "val/psnr" in row]) == 2


def test_every_so_many_validations_and_never(runner, codec):
    runner("fit", "diffusion", "often", over(codec, every=2, clips=1, seconds=0.2, faces=False, steps=1))
    runner("fit", "diffusion", "never", over(codec, every=0))
    counts = [sum("val/psnr" in row for row in logged(runner.folder / run).values()) for run in ("often", "never")]
    assert counts == [1, 0]


def test_steps_of_fit_are_those_of_the_evaluation_and_test_keeps_the_stages_own(runner, codec, monkeypatch):
    taken = []
    generate = judging.Judging._generate

    def watched(self, batch):
        taken.append(self.steps)
        return generate(self, batch)

    monkeypatch.setattr(judging.Judging, "_generate", watched)
    settings = over(codec, clips=1, seconds=0.2, faces=False, steps=2)
    runner("fit", "diffusion", "talk", settings)
    runner("test", "diffusion", "talk", settings)
    assert set(taken[:-2]) == {2} and taken[-2:] == [None, None]


def test_results_say_what_was_measured_how_and_of_whom(runner, codec):
    settings = over(codec, every=0)
    runner("fit", "diffusion", "talk", settings)
    runner("test", "diffusion", "talk", settings)
    content = results(runner.folder / "talk")
    assert content["format"] == 2 and set(content["methods"]) == {"ground truth", "model", "codec", "shuffled audio"}
    model = content["methods"]["model"]
    assert set(model["overall"]) == {*ALL} and model["per_clip"]["synthetic_003"]["frames"] == 8
    assert model["overall"]["lmd"] > 0 and content["methods"]["ground truth"]["overall"]["lmd"] == 0
    protocol = content["protocol"]
    assert protocol["generation"]["steps"] == 3 and protocol["data"]["frames_per_clip"] == 8
    assert protocol["measures"]["data_range"] == 2.0 and protocol["measures"]["faces"] is not None
    assert len(content["protocol_hash"]) == 12 and len(content["model"]["weights"]) == 12
    assert content["clips"] == {
        "scored": 1,
        "failed": 0,
        "not_scored": [],
        "reasons": {},
        "near_references": {},
        "seen_in_training": [],
    }
    (row,) = [row for row in logged(runner.folder / "talk").values() if "test/psnr" in row]
    assert row["test/psnr"] == pytest.approx(model["overall"]["psnr"])
    assert row["test/shuffled_audio/ssim"] == pytest.approx(content["methods"]["shuffled audio"]["overall"]["ssim"])


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

    def broken_model(self, window, steps=None):
        return generate(self, window, steps) | {"model": window["image"] * float("nan")}

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


def test_short_clips_are_judged_whole_and_their_near_references_counted(runner, codec, prepared, tmp_path):
    root = tmp_path / "short"
    shutil.copytree(prepared, root)
    rows = read_rows(root)
    assert rows["synthetic_003"].frames == 80, "no frame of 20 to 59 has a partner 60 away"
    write_rows(root, rows.values())
    runner.data = root
    settings = over(codec, every=0, faces=False)
    settings["data"] = {"contents": "images", "test_frames": 80}
    runner("fit", "diffusion", "talk", settings)
    runner("test", "diffusion", "talk", settings)
    content = results(runner.folder / "talk")
    assert content["methods"]["model"]["per_clip"]["synthetic_003"]["frames"] == 80
    assert content["clips"]["near_references"] == {"synthetic_003": 40}


def test_there_is_something_to_look_at_and_to_hear(runner, codec):
    settings = over(codec, clips=1, seconds=0.4, faces=False)
    runner("fit", "diffusion", "talk", settings)
    runner("test", "diffusion", "talk", settings)
    samples = runner.folder / "talk" / "samples"
    for stem in ("test_synthetic_003", "0000002_synthetic_002", "0000004_synthetic_002"):
        for ending in (".png", "_differences.png", ".mp4"):
            assert (samples / f"{stem}{ending}").stat().st_size > 500, stem + ending
    assert (samples / "test_codebook.png").exists()
    video = probe(samples / "test_synthetic_003.mp4")
    assert video.has_audio and (video.width, video.height) == (4 * (3 * 64 + 2), 3 * 64 + 14)
    steps = history(read_wandb(runner.folder / "talk"))
    kinds = {name: value.get("_type") for row in steps for name, value in row.items() if isinstance(value, dict)}
    assert kinds["val/sheets"] == kinds["test/differences"] == kinds["test/codebook"] == "images/separated"
    assert kinds["val/videos"] == "videos" and kinds["test/clips"] == "table-file"


def test_without_the_media_callback_nothing_is_drawn(runner, codec):
    settings = over(codec, every=0, faces=False)
    kept = [one for one in settings["trainer"]["callbacks"] if not one["class_path"].endswith("EvaluationMedia")]
    settings["trainer"]["callbacks"] = kept
    runner("fit", "diffusion", "talk", settings)
    runner("test", "diffusion", "talk", settings)
    assert not list((runner.folder / "talk" / "samples").glob("test_*"))


def test_pixels_are_rounded_not_cut():
    image = torch.tensor([-1.0, 0.0, 1.0, 2.0]).view(1, 1, 4).expand(3, 1, 4)
    assert to_pixels(image)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_contact_sheet_holds_every_frame():
    frames = [torch.full((3, 8, 8), value) for value in (-1.0, 1.0)]
    rows = [("a", [to_pixels(frame) for frame in frames]), ("b", [to_pixels(frames[1])])]
    sheet = contact_sheet(rows)
    assert sheet.shape == (2 * (8 + 14), 2 * 10, 3)
    assert (sheet[14:22, :8] == 0).all() and (sheet[14:22, 10:18] == 255).all()


def test_methods_stand_side_by_side_frame_by_frame():
    frames = {
        name: [to_pixels(torch.full((3, 8, 8), v)) for v in values]
        for name, values in {"a": (-1.0, 1.0), "b": (1.0, -1.0)}.items()
    }
    first, second = side_by_side(frames, side=16)
    assert first.shape == (2 * 8 + 14, 2 * (2 * 8 + 2), 3)
    assert (first[14:, :16] == 0).all() and (first[14:, 18:34] == 255).all()
    assert (second[14:, :16] == 255).all() and (second[14:, 18:34] == 0).all()
