"""The perceptual loss of stage 1: what it adds, and that nothing but the loss sees it."""

import copy
from pathlib import Path

import pytest
import torch

from difftalk_pl.__main__ import main
from difftalk_pl.cli import DiffTalkCLI, build_cli
from difftalk_pl.models.autoencoder import AutoencoderConfig
from difftalk_pl.models.codebook import Codebook
from difftalk_pl.training.autoencoder import Adversarial, AutoencoderPretraining
from difftalk_pl.training.perceptual import Perceptual, PerceptualDistance
from tests.backbones import write_backbone
from tests.training.test_autoencoder import logged

SMALL = AutoencoderConfig(block_out_channels=(8, 16), layers_per_block=1, codes=8, norm_num_groups=4)


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_backbone(tmp_path / "drawn.pth")


def stage(perceptual: Perceptual) -> AutoencoderPretraining:
    torch.manual_seed(0)
    module = AutoencoderPretraining(
        SMALL, perceptual=perceptual, codebook=Codebook(warmup=1), adversarial=Adversarial(weight=0.0)
    )
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return module


def over(weights, weight=1.0, **trainer):
    perceptual = {"network": "squeeze", "weights": str(weights), "weight": weight}
    return {"model": {"init_args": {"perceptual": perceptual}}, "trainer": trainer}


def test_the_loss_is_the_published_mean_over_pixels(weights):
    """LDM adds every picture's distance to each of its pixels' absolute errors and takes the mean of all."""
    module = stage(Perceptual("squeeze", weights, 0.7))
    module.distance = PerceptualDistance("squeeze", weights, "x")
    image = torch.rand(3, 3, 64, 64) * 2 - 1
    output = module.autoencoder(image, quantise=False)
    perceptual = module.distance(output.image, image)[:, None, None, None]
    expected = ((output.image - image).abs() + 0.7 * perceptual).mean()
    loss = module._autoencoder_loss(image, output)["loss"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    with_perceptual = module.autoencoder.last_layer.grad.clone()
    module.zero_grad()
    (module.autoencoder(image, quantise=False).image - image).abs().mean().backward()
    assert not torch.allclose(with_perceptual, module.autoencoder.last_layer.grad, rtol=0.01)


def test_a_run_logs_it_lowers_it_and_resumes_strictly(runner, weights):
    cli = runner("fit", "autoencoder", "vq", over(weights, 5.0, max_steps=20))
    run = runner.folder / "vq"
    assert cli.model.distance is not None
    distances = logged(run, "train/perceptual")
    assert len(distances) == 20 and sum(distances[-5:]) < 0.9 * sum(distances[:5])
    parts = zip(logged(run, "train/l1"), distances, logged(run, "train/codebook_loss"))
    assert logged(run, "train/loss") == pytest.approx([l1 + 5 * distance + code for l1, distance, code in parts])
    runner("fit", "autoencoder", "vq", over(weights, 5.0, max_steps=22))
    assert torch.load(runner.checkpoint("vq"), weights_only=True)["global_step"] == 22


def test_nothing_but_the_loss_sees_the_network(runner, weights):
    with_it = runner("fit", "autoencoder", "with", over(weights, max_steps=1))
    without = runner("fit", "autoencoder", "without", {"trainer": {"max_steps": 1}})
    states = [torch.load(runner.checkpoint(run), weights_only=True)["state_dict"] for run in ("with", "without")]
    assert states[0].keys() == states[1].keys()
    assert len(list(with_it.model.parameters())) == len(list(without.model.parameters()))
    assert copy.deepcopy(with_it.model.distance) is with_it.model.distance
    assert not any(parameter.requires_grad for parameter in with_it.model.distance.network.parameters())


@pytest.mark.parametrize("null", ["null", "None"])
def test_the_command_line_takes_back_what_a_yaml_names(runner, monkeypatch, weights, null):
    """What is nested two levels deep gets the word for a null, which must be no file and no network."""
    monkeypatch.setattr(DiffTalkCLI, "_run_subcommand", lambda *_: None)
    config = runner.config("autoencoder", "vq", over(weights))

    def perceptual(*arguments):
        return build_cli(["fit", "-c", str(config), *arguments]).model.perceptual

    option = "--model.init_args.perceptual."
    assert perceptual(f"{option}weight", "2") == Perceptual("squeeze", weights, 2.0)
    assert perceptual(f"{option}weights", null) == Perceptual("squeeze", None, 1.0)
    assert perceptual(f"{option}network", null) == Perceptual(None, weights, 1.0)
    assert Perceptual(None, weights).distance("x") is None


def test_missing_weights_stop_a_fit_before_its_first_step(runner, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    config = runner.config("autoencoder", "vq", {"model": {"init_args": {"perceptual": {"network": "vgg"}}}})
    assert main(["fit", "-c", str(config)]) == 1
    message = capsys.readouterr().err
    last = message.strip().splitlines()[-1]
    assert "Traceback" not in message and "vgg16-397923af.pth: no weights of vgg" in last
    assert "fetch-weights vgg" in last and "model.init_args.perceptual.weights" in last
    assert not runner.checkpoint("vq").exists()


def test_a_test_needs_no_perceptual_weights(runner, monkeypatch, tmp_path, weights):
    runner("fit", "autoencoder", "vq", over(weights, max_steps=1))
    weights.unlink()
    cli = runner("test", "autoencoder", "vq", {**over(weights), "data": {"test_frames": 2}})
    assert cli.model.distance is None and (runner.folder / "vq" / "results.json").exists()
