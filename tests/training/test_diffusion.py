"""Stage 2 through the real command line."""

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.training.diffusion import DiffusionTraining
from difftalk_pl.training.weights import read_weights
from tests.training.test_autoencoder import assert_equal, logged, over, state
from tests.training.test_weights import DEMO


@pytest.fixture
def on(codec):
    """Settings of some steps on the cached latents of `codec`."""

    def settings(steps, trainer=None, **model):
        experiment = over(steps, **{"autoencoder": str(codec), **model})
        experiment["trainer"] |= trainer or {}
        return experiment

    return settings


def test_on_images_the_loss_is_that_on_cached_latents(runner, on):
    runner("fit", "diffusion", "latents", on(1))
    runner("fit", "diffusion", "images", on(1) | {"data": {"contents": "images"}})
    cached, direct = (logged(runner.folder / name, "train/loss")[0] for name in ("latents", "images"))
    assert direct == pytest.approx(cached, rel=2e-2)


def test_a_resumed_run_equals_an_uninterrupted_one(runner, on):
    options = {"trainer": {"accumulate_grad_batches": 2}, "audio_dropout": 0.3}
    runner("fit", "diffusion", "whole", on(4, **options))
    runner("fit", "diffusion", "parts", on(2, **options))
    runner("fit", "diffusion", "parts", on(4, **options))
    assert_equal(state(runner, "whole"), state(runner, "parts"))
    expected, resumed = (logged(runner.folder / name, "train/loss") for name in ("whole", "parts"))
    assert resumed == expected[len(expected) // 2 :]


def test_averaged_weights_are_what_a_checkpoint_hands_on(runner, on):
    ema = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}
    runner("fit", "diffusion", "ema", on(2, {"callbacks+": [ema]}))
    checkpoint = torch.load(runner.checkpoint("ema"), weights_only=True)
    name, weights = "denoiser.conv_in.weight", read_weights(runner.checkpoint("ema"))
    assert torch.equal(weights.state[name], checkpoint["state_dict"][f"difftalk.{name}"])
    assert not torch.equal(weights.state[name], checkpoint["current_model_state"][f"difftalk.{name}"])
    assert not any(key.startswith("codec") for key in checkpoint["state_dict"])


def test_the_parts_of_an_accumulated_step_do_not_share_their_noise(runner, on, monkeypatch):
    drawn = []

    def noise_error(self, batch, generators):
        drawn.append(torch.rand((), generator=generators[0]).item())
        return self.difftalk.denoiser.conv_in.weight.sum()

    monkeypatch.setattr(DiffusionTraining, "_noise_error", noise_error)
    runner("fit", "diffusion", "accumulated", on(2, {"accumulate_grad_batches": 2}))
    assert len(drawn) == len(set(drawn)) == 4


def test_the_rate_of_the_configuration_holds_on_resume(runner, on):
    runner("fit", "diffusion", "rates", on(1, optimisation={"learning_rate": 1e-3}))
    then = {"learning_rate": 1e-5, "weight_decay": 0.5, "warmup_steps": 4}
    cli = runner("fit", "diffusion", "rates", on(2, optimisation=then))
    (group,) = cli.trainer.optimizers[0].param_groups
    assert (group["initial_lr"], group["weight_decay"]) == (1e-5, 0.5)
    assert logged(runner.folder / "rates", "train/loss") and group["lr"] == pytest.approx(1e-5 * 3 / 4)


def test_a_checkpoint_of_another_autoencoder_or_stage_is_refused(runner, on, codec, fitted_diffusion):
    other = on(2, autoencoder=str(DEMO / "autoencoder")) | {"data": {"contents": "images"}}
    checkpoint = {"ckpt_path": str(fitted_diffusion / "checkpoints" / "last.ckpt")}
    with pytest.raises(UserError, match=r"was trained with autoencoder \w+, model\.autoencoder is"):
        runner("fit", "diffusion", "talk", other | checkpoint)
    with pytest.raises(UserError, match="the checkpoint is of autoencoder, expected diffusion"):
        runner("fit", "diffusion", "new", on(2) | {"ckpt_path": str(codec)})
    with pytest.raises(UserError, match="no checkpoint of this run; fit first"):
        runner("test", "diffusion", "nothing", on(1))


def explode(module, batch):
    """A finite loss whose gradient is not."""
    next(module.difftalk.parameters()).register_hook(lambda gradient: gradient * torch.inf)


def spoil(module, batch):
    batch["z"][1].view(-1)[5] = torch.nan


@pytest.mark.parametrize(("accident", "message"), [(spoil, r"loss is nan with clips"), (explode, "gradient_norm is")])
def test_numbers_that_are_not_finite_stop_before_the_step(runner, on, monkeypatch, accident, message):
    original = DiffusionTraining.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            accident(self, batch)
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTraining, "training_step", training_step)
        with pytest.raises(UserError, match=rf"^step 2: {message}"):
            runner("fit", "diffusion", "nan", on(3))
    assert all(value.isfinite().all() for value in state(runner, "nan").values())
    for run in ("nan", "whole"):
        runner("fit", "diffusion", run, on(3))
    assert_equal(state(runner, "nan"), state(runner, "whole"))


def test_gradients_that_overflow_are_left_to_the_scaler_of_float16(runner, on):
    scaler = {"class_path": "torch.amp.GradScaler", "init_args": {"device": "cpu", "init_scale": 2.0**30}}
    options = {"precision": "16-mixed", "device": "cpu", "scaler": scaler}
    plugin = {"class_path": "lightning.pytorch.plugins.MixedPrecision", "init_args": options}
    cli = runner("fit", "diffusion", "half", on(4, {"plugins+": [plugin]}))
    assert cli.trainer.precision_plugin.scaler.get_scale() < 2.0**30
