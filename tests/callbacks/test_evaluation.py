"""Evaluation through the real command line: what it logs, writes, counts and shows."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import lpips as theirs

from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation import judge
from difftalk_pl.evaluation.judge import ALL
from difftalk_pl.media.video import probe
from difftalk_pl.training import pretrained
from difftalk_pl.training.diffusion import DiffusionTraining
from difftalk_pl.training.pretrained import PerceptualDistance
from tests.backbones import write_backbone
from tests.runner import CALLBACKS, TRAINER
from tests.wandb_records import history, read_wandb

EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.6}}
CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "${run}", "name": "metrics"}}
METHODS = {"ground truth", "model", "codec", "shuffled audio"}


def evaluated(**arguments):
    """The callbacks of the tests with an Evaluation of these arguments."""
    mine = {"class_path": f"{CALLBACKS}evaluation.Evaluation", "init_args": {"lpips": None, "faces": False} | arguments}
    return [mine if one["class_path"].endswith(".Evaluation") else one for one in TRAINER["callbacks"]]


def over(codec, **data):
    return {
        "model": {"init_args": {"autoencoder": str(codec)}},
        "data": {"val_frames": 10, "test_frames": 8, **data},
        "trainer": {"callbacks": [*evaluated(), EMA], "limit_val_batches": 1.0},
    }


@pytest.fixture
def tested(runner, codec, fitted_diffusion):
    """Runs `test`, or another command, on the session's diffusion model; returns results.json."""

    def run(command="test", callbacks=None, sampler=None, logger=False, **data):
        settings = over(codec, contents="images", **data)
        settings["ckpt_path"] = str(fitted_diffusion / "checkpoints" / "last.ckpt")
        settings["trainer"] |= {"callbacks": evaluated() if callbacks is None else callbacks, "logger": logger}
        settings["model"]["init_args"]["sampler"] = sampler or {}
        runner(command, "diffusion", "run", settings)
        name = "results_val.json" if command == "validate" else "results.json"
        return None if command == "predict" else results(runner.folder / "run", name)

    return run


def logged(run: Path) -> dict[int, dict[str, float]]:
    """metrics.csv by step."""
    rows: dict[int, dict[str, float]] = {}
    for path in sorted(run.glob("metrics/version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            rows.setdefault(int(row["step"]), {}).update({k: float(v) for k, v in row.items() if v and k != "step"})
    return rows


def results(run: Path, name="results.json"):
    return json.loads((run / name).read_text())


def people(*test):
    return {"split": {"train": ["synthetic_000"], "val": ["synthetic_002"], "test": list(test)}}


def test_fit_scores_a_few_clips_with_the_averaged_weights_and_val_steps(runner, codec, monkeypatch):
    """The last validation stands at the weights of last.ckpt, which are the averages: `validate` finds them again."""
    taken, generator = [], DiffusionTraining.generator
    monkeypatch.setattr(
        DiffusionTraining, "generator", lambda self, steps: taken.append(steps) or generator(self, steps)
    )
    settings = over(codec, val_clips=1, val_seconds=0.4)
    settings["model"]["init_args"]["sampler"] = {"steps": 2, "val_steps": 2}
    runner("fit", "diffusion", "talk", settings)
    run = runner.folder / "talk"
    steps = {step: row for step, row in logged(run).items() if "val/psnr" in row}
    assert len(steps) == 2, "at both validations"
    last = steps[max(steps)]
    assert {"val/loss", "val/ssim", "val/mouth_psnr", "val/codec/psnr", "val/ground_truth/ssim"} <= {*last}
    assert "val/ground_truth/psnr" not in last, "what is infinite is no number"
    assert "val/shuffled_audio/psnr" not in last, "the control takes as long as the model"
    assert not (run / "results.json").exists()
    samples = run / "samples"
    assert all((samples / f"0000002_synthetic_002{end}").stat().st_size > 500 for end in (".png", ".mp4"))
    assert set(taken) == {2}, "val_steps"
    taken.clear()
    runner("validate", "diffusion", "talk", settings)
    assert set(taken) == {None}
    found = results(run, "results_val.json")["methods"]
    assert found["model"]["overall"]["psnr"] == pytest.approx(last["val/psnr"], rel=1e-4)
    assert found["model"]["per_clip"]["synthetic_002"]["frames"] == 10 and "shuffled audio" in found
    assert len([row for row in logged(run).values() if "val/psnr" in row]) == 2, "no point of the curve of fit"
    values = [item for row in history(read_wandb(run)) for item in row.items() if isinstance(item[1], dict)]
    kinds = {key: value.get("_type") for key, value in values}
    assert kinds["val/sheets"] == "images/separated" and kinds["validate/videos"] == "videos"
    assert kinds["validate/clips"] == "table-file"


def test_results_say_what_was_measured_how_and_of_whom(tested, runner, fitted_syncnet):
    syncnet = str(fitted_syncnet / "checkpoints" / "last.ckpt")
    content = tested(callbacks=evaluated(faces=True, syncnet=syncnet, sync_crop="whole_frame"), logger=CSV)
    assert content["format"] == 2 and set(content["methods"]) == METHODS
    model = content["methods"]["model"]
    assert set(model["overall"]) == {*ALL} and model["per_clip"]["synthetic_003"]["frames"] == 8
    assert content["methods"]["ground truth"]["overall"]["lmd"] == 0
    assert len(model["curves"]["synthetic_003"]) == 31
    protocol = content["protocol"]
    assert protocol["generation"]["steps"] == 3 and protocol["data"]["frames_per_clip"] == 8
    assert protocol["measures"]["faces"] is not None and len(protocol["measures"]["sync"]["weights"]) == 12
    assert len(content["protocol_hash"]) == 12 and len(content["model"]["weights"]) == 12
    counts = {"scored": 1, "failed": 0, "not_scored": [], "reasons": {}, "seen_in_training": []}
    assert content["clips"] == counts | {"near_references": {}}
    (row,) = [row for row in logged(runner.folder / "run").values() if "test/psnr" in row]
    assert row["test/psnr"] == pytest.approx(model["overall"]["psnr"])
    assert row["test/shuffled_audio/ssim"] == pytest.approx(content["methods"]["shuffled audio"]["overall"]["ssim"])
    samples = runner.folder / "run" / "samples"
    assert (samples / "test_synthetic_003_sync.png").stat().st_size > 500
    video = probe(samples / "test_synthetic_003.mp4")
    assert video.has_audio and (video.width, video.height) == (4 * (3 * 64 + 2), 3 * 64 + 14)


def test_people_seen_in_training_and_near_references_are_told(tested):
    """Of 80 frames, 4 to 75 have none 76 frames away."""
    split = {"train": ["synthetic_003"], "val": ["synthetic_000"], "test": []}
    clips = tested("validate", split=split, min_reference_gap=76)["clips"]
    assert clips["seen_in_training"] == ["synthetic_000"] and clips["near_references"] == {"synthetic_000": 6}


def test_frames_are_scored_as_8_bit_whatever_the_precision_and_lpips_is_that_of_torchmetrics(
    tested, runner, codec, monkeypatch
):
    weights = write_backbone(runner.folder / "drawn.pth", "squeeze")
    seen = {}
    generate = DiffusionTraining.generate

    def recorded(self, window, state, steps=None):
        frames = generate(self, window, state, steps)
        for name in ("image", "mask"):
            seen.setdefault(name, []).append(window[name])
        seen.setdefault("codec", []).append(torch.from_numpy(to_pixels(frames["codec"])).movedim(-1, 1) / 127.5 - 1)
        return frames

    monkeypatch.setattr(DiffusionTraining, "generate", recorded)
    content = tested(callbacks=evaluated(lpips="squeeze", lpips_weights=str(weights)))
    image, mask, drawn = (torch.cat(seen[name]) for name in ("image", "mask", "codec"))
    features = PerceptualDistance("squeeze", weights, "x").network.features
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: features)
    whole, maps = (theirs._LPIPS(pnet_rand=True, net="squeeze", spatial=spatial) for spatial in (False, True))
    mouth = [one[where].mean() for one, where in zip(maps(drawn, image), mask > 0.5)]
    found = content["methods"]["codec"]["per_clip"]["synthetic_003"]
    assert found["lpips"] == pytest.approx(float(whole(drawn, image).mean()), rel=1e-4) and found["lpips"] > 0
    assert found["mouth_lpips"] == pytest.approx(float(torch.stack(mouth).mean()), rel=1e-4)
    assert content["protocol"]["measures"]["lpips"]["file"] == "drawn.pth"


def test_without_weights_a_measure_is_null_and_one_warning_says_how_to_fetch_them(tested, runner, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_HOME", str(runner.folder / "nothing"))
    monkeypatch.setattr(judge.log, "propagate", True)
    added = {"class_path": f"{CALLBACKS}evaluation.Evaluation", "init_args": {"faces": False}}
    content = tested(callbacks=[*evaluated(lpips="squeeze", lpips_weights="no.pth"), added])
    assert all(method["overall"]["lpips"] is None for method in content["methods"].values())
    assert "not_measured" in content["protocol"]["measures"]["lpips"], "the Evaluation that is added replaces the other"
    (warning,) = [record.getMessage() for record in caplog.records if "LPIPS" in record.getMessage()]
    assert "fetch-weights alex" in warning and pretrained.BACKBONES["alex"] in warning
    with pytest.raises(UserError, match=r"mine\.pth: no weights of squeeze.*lpips_weights"):
        tested(callbacks=evaluated(lpips="squeeze", lpips_weights="mine.pth"))


@pytest.fixture
def clips(runner, prepared, tmp_path):
    """The clips of a copy of the dataset, to be damaged."""
    runner.data = tmp_path / "damaged"
    shutil.copytree(prepared, runner.data)
    return runner.data / "clips"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def not_finite(path):
    np.save(path, np.full_like(np.load(path), np.nan))


@pytest.mark.parametrize(
    ("reference", "workers", "damages"),
    [
        ("each", 1, {"video.mp4": cut, "audio.wav": Path.unlink}),
        ("progressive", 0, {"landmarks.npy": not_finite, "features/mfcc.npy": cut}),
    ],
)
def test_damaged_clips_cost_only_themselves(tested, clips, reference, workers, damages):
    for number, (file, damage) in enumerate(damages.items()):
        damage(clips / f"synthetic_00{number}" / file)
    split = {"train": ["synthetic_002"], "val": [], "test": ["synthetic_000", "synthetic_001", "synthetic_003"]}
    loading = {"eval_batch_size": 3, "workers": workers}
    content = tested(sampler={"reference": reference}, loading=loading, split=split)
    reasons = content["clips"]["reasons"]
    assert content["clips"]["not_scored"] == ["synthetic_000", "synthetic_001"] and content["clips"]["scored"] == 1
    for file, reason in zip(damages, reasons.values()):
        assert Path(file).name in reason and "\n" not in reason and "Traceback" not in reason
    for method in content["methods"].values():
        assert method["failed"]["ssim"] == reasons and method["undefined"]["ssim"] == 2
        assert method["per_clip"]["synthetic_003"]["ssim"] is not None


def test_where_every_clip_fails_the_command_fails_after_results_are_written(tested, runner, clips):
    (clips / "synthetic_001" / "audio.wav").unlink()
    with pytest.raises(UserError, match=r"none of 1 clips could be scored, .*audio\.wav"):
        tested(**people("synthetic_001"))
    methods = results(runner.folder / "run")["methods"]
    assert set(methods) == METHODS and methods["model"]["overall"]["psnr"] is None
    assert list(methods["model"]["failed"]["psnr"]) == ["synthetic_001"]


def test_frames_that_are_not_finite_cost_their_clip_and_pictures_that_cannot_be_written_nothing(
    tested, runner, monkeypatch
):
    (runner.folder / "run").mkdir()
    (runner.folder / "run" / "samples").write_text("a file in the folder's place")
    generate = DiffusionTraining.generate

    def spoilt(self, window, state, steps=None):
        frames = generate(self, window, state, steps)
        bad = torch.tensor([clip == "synthetic_001" for clip in window["clip"]])
        frames["model"][bad] = torch.nan
        return frames

    monkeypatch.setattr(DiffusionTraining, "generate", spoilt)
    clips = tested(**people("synthetic_001", "synthetic_003"))["clips"]
    assert clips["scored"] == 1 and "model: frames with numbers that are not" in clips["reasons"]["synthetic_001"]
    assert clips["seen_in_training"] == ["synthetic_001"]
