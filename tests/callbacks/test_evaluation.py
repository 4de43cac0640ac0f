"""Evaluation through the real command line: what it logs, writes, counts and shows."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from difftalk_pl.callbacks.sheets import contact_sheet, side_by_side
from difftalk_pl.data.clips import read_index
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.evaluation import judging
from difftalk_pl.evaluation.judge import ALL
from difftalk_pl.media.video import probe
from tests.runner import CALLBACKS, TRAINER
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

    def watched(self, batch, memory):
        taken.append(self.steps)
        return generate(self, batch, memory)

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


def test_short_clips_are_judged_whole_and_their_near_references_counted(runner, codec, prepared, tmp_path):
    root = tmp_path / "short"
    shutil.copytree(prepared, root)
    rows = read_index(root)
    assert rows["synthetic_003"].frames == 80, "no frame of 20 to 59 has a partner 60 away"
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
