"""LPIPS in results.json: the numbers of torchmetrics' own module, or none and the reason."""

import json
import logging
import re

import pytest
import torch
import wandb
from torchmetrics.functional.image import lpips as theirs

from difftalk_pl.__main__ import main
from difftalk_pl.callbacks import evaluation
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation import judge
from difftalk_pl.models import pretrained
from difftalk_pl.models.pretrained import file_hash
from difftalk_pl.training.perceptual import PerceptualDistance
from tests.backbones import write_backbone

EVALUATION = "difftalk_pl.callbacks.evaluation.Evaluation"
LAST = {
    "class_path": "difftalk_pl.callbacks.checkpoints.LastCheckpoint",
    "init_args": {"dirpath": "${run}/checkpoints"},
}


def over(**arguments):
    """A test of six frames with an Evaluation of these arguments."""
    callbacks = [LAST, {"class_path": EVALUATION, "init_args": {"every": 0, "faces": False, **arguments}}]
    return {"data": {"test_frames": 6}, "trainer": {"callbacks": callbacks}}


def results(runner, run="vq"):
    return json.loads((runner.folder / run / "results.json").read_text())


@pytest.fixture
def warnings():
    """What the evaluation warns of."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    judge.log.addHandler(handler)
    yield messages
    judge.log.removeHandler(handler)


def test_scores_are_those_of_torchmetrics(runner, codec, monkeypatch):
    weights = write_backbone(runner.folder / "torch" / "hub" / "checkpoints" / "drawn.pth", "alex")
    monkeypatch.setenv("TORCH_HOME", str(runner.folder / "torch"))
    monkeypatch.setitem(pretrained.BACKBONES, "alex", weights.name)
    model = {"model": {"init_args": {"autoencoder": str(codec)}}}
    runner("fit", "diffusion", "vq", {**model, "trainer": {"max_steps": 1}})
    cli = runner("test", "diffusion", "vq", model)
    features = PerceptualDistance("alex", weights, "x").network.features
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *_: features)
    whole, maps = (theirs._LPIPS(pnet_rand=True, net="alex", spatial=spatial) for spatial in (False, True))
    expected = []
    windows = cli.datamodule.evaluation("test")
    for batch in cli.datamodule.evaluation_loader(windows, windows.indices(0)):
        with torch.no_grad():
            frames = torch.from_numpy(to_pixels(cli.model.generate(batch)["codec"])).movedim(-1, 1) / 127.5 - 1
            inside = batch["mask"] > 0.5
            mouth = [maps(f[None], i[None])[0][m].mean() for f, i, m in zip(frames, batch["image"], inside)]
            expected += list(zip(whole(frames, batch["image"]).flatten().tolist(), map(float, mouth)))
    methods, protocol = results(runner)["methods"], results(runner)["protocol"]["measures"]["lpips"]
    assert len(expected) == methods["codec"]["per_clip"]["synthetic_003"]["frames"] == 6
    for number, measure in enumerate(("lpips", "mouth_lpips")):
        mean = sum(row[number] for row in expected) / len(expected)
        assert methods["codec"]["per_clip"]["synthetic_003"][measure] == pytest.approx(mean, rel=1e-4)
        assert methods["codec"]["overall"][measure] == pytest.approx(mean, rel=1e-4) and mean > 0
        assert methods["ground truth"]["overall"][measure] == 0
        assert methods["codec"]["undefined"][measure] == 0
    assert (protocol["network"], protocol["file"]) == ("alex", "drawn.pth")
    assert protocol["sha256"] == file_hash(weights)


def test_without_weights_there_is_one_warning_and_no_number(runner, monkeypatch, warnings):
    monkeypatch.setenv("TORCH_HOME", str(runner.folder / "nothing"))
    runner("fit", "autoencoder", "vq")
    runner("test", "autoencoder", "vq", {"data": {"test_frames": 6}})
    (warning,) = warnings
    assert "fetch-weights alex" in warning and "https://download.pytorch.org/models/alexnet-owt" in warning
    content = results(runner)
    for method in content["methods"].values():
        assert method["overall"]["lpips"] is method["overall"]["mouth_lpips"] is None
        assert method["undefined"]["lpips"] == 1 and method["overall"]["ssim"] is not None
    assert content["protocol"]["measures"]["lpips"]["network"] == "alex"
    assert content["protocol"]["measures"]["lpips"]["not_measured"] in warning
    logs = "".join(path.read_text() for path in (runner.folder / "vq" / "metrics").rglob("metrics.csv"))
    assert "test/ssim" in logs and "lpips" not in logs


def test_null_measures_nothing_and_says_nothing(runner, warnings):
    runner("fit", "autoencoder", "vq")
    runner("test", "autoencoder", "vq", over(lpips=None))
    assert not warnings and results(runner)["protocol"]["measures"]["lpips"] is None
    assert results(runner)["methods"]["codec"]["overall"]["lpips"] is None


def test_a_file_that_was_named_has_to_be_there(runner):
    runner("fit", "autoencoder", "vq")
    with pytest.raises(UserError, match=r"mine\.pth: no weights of squeeze.*lpips_weights"):
        runner("test", "autoencoder", "vq", over(lpips="squeeze", lpips_weights=str(runner.folder / "mine.pth")))
    assert not (runner.folder / "vq" / "results.json").exists()


def test_an_evaluation_that_is_added_replaces_the_one_in_the_defaults(runner, monkeypatch, warnings):
    monkeypatch.setenv("TORCH_HOME", str(runner.folder / "nothing"))
    weights = write_backbone(runner.folder / "mine.pth")
    runner("fit", "autoencoder", "vq")
    added = {"class_path": EVALUATION, "init_args": {"lpips": "squeeze", "lpips_weights": str(weights), "faces": False}}
    cli = runner("test", "autoencoder", "vq", {"data": {"test_frames": 6}, "trainer": {"callbacks+": [added]}})
    first, last = (callback for callback in cli.trainer.callbacks if isinstance(callback, evaluation.Evaluation))
    assert not warnings and first.judge is None and last.judge is not None
    content = results(runner)
    assert (
        content["protocol"]["measures"]["lpips"]["file"] == "mine.pth"
        and content["methods"]["codec"]["overall"]["lpips"] > 0
    )


def test_the_warning_names_options_that_measure_with_a_file_of_ones_own(runner, monkeypatch, warnings):
    monkeypatch.setenv("TORCH_HOME", str(runner.folder / "nothing"))
    weights = write_backbone(runner.folder / "mine.pth", "alex")
    runner("fit", "autoencoder", "vq")
    runner("test", "autoencoder", "vq", {"data": {"test_frames": 6}})
    (options,) = re.findall("`(--.*)`", warnings[0])
    config = runner.config("autoencoder", "vq", {"data": {"test_frames": 6}})
    assert main(["test", "-c", str(config), *options.replace("FILE", str(weights)).split()]) == 0
    wandb.finish()
    assert results(runner)["protocol"]["measures"]["lpips"]["file"] == "mine.pth"
    assert results(runner)["methods"]["codec"]["overall"]["lpips"] > 0 and len(warnings) == 1
