"""A number that is not finite stops a training while its weights are good."""

from types import SimpleNamespace

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.adversarial import hinge_discriminator_loss
from difftalk_pl.models.autoencoder import AutoencoderConfig
from difftalk_pl.training.autoencoder import AutoencoderPretraining
from difftalk_pl.training.diffusion import DiffusionTraining
from difftalk_pl.training.guard import StepGuard, buffers_restored, gradient_norm

BATCH = {"clip": ["ann", "bob", "ann"], "frame": torch.tensor([4, 7, 9]), "image": torch.zeros(3, 3, 2, 2)}
GAN = {
    "model": {"init_args": {"adversarial": {"weight": 0.5, "filters": 8, "layers": 1}, "codebook": {"update": "ema"}}},
    "trainer": {"max_steps": 5, "limit_val_batches": 0},
}
AT = 3  # the step that goes wrong


def number(value):
    return torch.tensor(float(value))


def content(runner, run):
    return torch.load(runner.checkpoint(run), weights_only=True)


def tensors(value):
    """All tensors in a checkpoint, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors(each)


def assert_goes_on_as_if_nothing_had_been(runner, stage, run, over):
    """The checkpoint of the step before is whole and finite, and leads where an undisturbed run ends."""
    broken = content(runner, run)
    assert broken["global_step"] == AT
    assert all(tensor.isfinite().all() for tensor in tensors([broken["state_dict"], broken["optimizer_states"]]))
    runner("fit", stage, run, over)
    runner("fit", stage, "whole", over)
    resumed, whole = (content(runner, name)["state_dict"] for name in (run, "whole"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def spoil_input(module, batch):
    key = "image" if "image" in batch else "z"
    batch[key][1].view(-1)[5] = torch.nan


def at_step(monkeypatch, owner, spoil):
    """`spoil(module, batch)` before the training step AT."""
    original = owner.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == AT:
            spoil(self, batch)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(owner, "training_step", training_step)


def test_the_message_names_step_term_clips_frames_and_remedy():
    guard = StepGuard("Take more care.")
    guard.watch({**BATCH, "z": number(torch.inf)}, {"l1": number(1), "loss": number(torch.nan)})
    with pytest.raises(UserError) as stop:
        guard.check(12, {"gradient norm": number(torch.inf)})
    message = str(stop.value)
    assert message.startswith("step 12: loss is nan, gradient norm is inf with ann frames 4, 9, bob frame 7")
    assert "not finite in the data: z" in message and "image" not in message and "l1" not in message
    assert message.endswith("Take more care.") and "\n" not in message


def test_what_is_finite_passes_and_is_forgotten():
    guard = StepGuard("")
    guard.watch(BATCH, {"loss": number(1e38)})
    guard.check(1, {"gradient norm": number(0)})
    guard.watch({**BATCH, "clip": ["cid"] * 3}, {"loss": number(torch.nan)})
    with pytest.raises(UserError) as stop:
        guard.check(2, {})
    assert "cid" in str(stop.value) and "ann" not in str(stop.value)
    guard.check(3, {})


def test_running_statistics_come_back_only_when_a_step_is_broken_off():
    norm = torch.nn.BatchNorm2d(3)
    image = torch.full((2, 3, 4, 4), torch.nan)
    with pytest.raises(UserError), buffers_restored(norm):
        norm(image)
        raise UserError
    assert torch.equal(norm.running_mean, torch.zeros(3)) and norm.num_batches_tracked == 0
    with buffers_restored(norm):
        norm(torch.ones(2, 3, 4, 4))
    assert norm.running_mean.mean() > 0


def test_the_gradient_norm_is_that_of_all_gradients_together():
    layers = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)
    layers[0].weight.grad, layers[0].bias.grad = torch.full((2, 3), 2.0), torch.full((2,), 1.0)
    assert gradient_norm(torch.nn.ModuleList(layers).parameters()).item() == pytest.approx((6 * 4 + 2) ** 0.5)


def test_stage_one_stops_at_a_spoilt_batch_and_goes_on(runner, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, AutoencoderPretraining, spoil_input)
        with pytest.raises(
            UserError, match=rf"^step {AT}: l1 is nan, .*loss is nan.* with synthetic_00\d frame"
        ) as stop:
            runner("fit", "autoencoder", "nan", GAN)
    assert "not finite in the data: image" in str(stop.value) and "discriminator_loss is nan" in str(stop.value)
    assert_goes_on_as_if_nothing_had_been(runner, "autoencoder", "nan", GAN)


def test_a_discriminator_that_goes_wrong_stops_the_autoencoders_step_too(runner, monkeypatch):
    calls = []

    def loss(real, fake):
        calls.append(1)
        return hinge_discriminator_loss(real, fake) * (torch.nan if len(calls) == AT + 1 else 1)

    with monkeypatch.context() as patch:
        patch.setattr("difftalk_pl.training.autoencoder.hinge_discriminator_loss", loss)
        with pytest.raises(
            UserError, match=rf"^step {AT}: discriminator_loss is nan, discriminator's gradient norm is"
        ):
            runner("fit", "autoencoder", "nan", GAN)
    assert_goes_on_as_if_nothing_had_been(runner, "autoencoder", "nan", GAN)


def explode(module, batch):
    """A finite loss whose gradient is not."""
    network = getattr(module, "difftalk", None) or module.autoencoder
    next(network.parameters()).register_hook(lambda gradient: gradient * torch.inf)


def test_a_gradient_that_is_not_finite_stops_stage_one_though_the_loss_is(runner, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, AutoencoderPretraining, explode)
        with pytest.raises(UserError, match=rf"^step {AT}: gradient norm is (nan|inf) with synthetic"):
            runner("fit", "autoencoder", "nan", GAN)
    assert_goes_on_as_if_nothing_had_been(runner, "autoencoder", "nan", GAN)


def test_stage_two_stops_before_the_step_and_goes_on(runner, codec, monkeypatch):
    over = {
        "model": {"init_args": {"autoencoder": str(codec)}},
        "trainer": {"max_steps": 5, "limit_val_batches": 0},
    }
    with monkeypatch.context() as patch:
        at_step(patch, DiffusionTraining, spoil_input)
        with pytest.raises(UserError, match=rf"^step {AT}: loss is nan, gradient norm is .* with synthetic_00\d frame"):
            runner("fit", "diffusion", "nan", over)
    assert_goes_on_as_if_nothing_had_been(runner, "diffusion", "nan", over)


def test_an_accumulated_step_of_stage_two_names_the_windows_of_all_its_parts(runner, codec, monkeypatch):
    trainer = {"max_steps": 5, "limit_val_batches": 0, "accumulate_grad_batches": 2}
    at_step(monkeypatch, DiffusionTraining, explode)
    with pytest.raises(UserError, match=rf"^step {AT}: gradient norm is (nan|inf) with synthetic") as stop:
        runner("fit", "diffusion", "nan", {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": trainer})
    frames = str(stop.value).split(" with ")[1].split(". Stopped")[0]
    assert len([word for word in frames.replace(",", "").replace(";", "").split() if word.isdigit()]) == 2 * 4
    assert all(tensor.isfinite().all() for tensor in tensors(content(runner, "nan")["state_dict"]))


def scaled(codec, scale):
    """float16 with a scaler on a CPU."""
    scaler = {"class_path": "torch.amp.GradScaler", "init_args": {"device": "cpu", "init_scale": scale}}
    plugin = {
        "class_path": "lightning.pytorch.plugins.MixedPrecision",
        "init_args": {"precision": "16-mixed", "device": "cpu", "scaler": scaler},
    }
    trainer = {"max_steps": 4, "limit_val_batches": 0, "plugins+": [plugin]}
    return {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": trainer}


def test_gradients_that_overflow_are_left_to_the_scaler_of_float16(runner, codec):
    cli = runner("fit", "diffusion", "half", scaled(codec, 2.0**30))
    scaler = cli.trainer.precision_plugin.scaler
    assert scaler.get_scale() < 2.0**30, "it met overflows and left these steps out"


def test_a_loss_that_is_not_finite_stops_float16_too(runner, codec, monkeypatch):
    at_step(monkeypatch, DiffusionTraining, spoil_input)
    with pytest.raises(UserError, match=rf"^step {AT}: loss is nan with"):
        runner("fit", "diffusion", "half", scaled(codec, 1.0))


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true", "16-true"])
def test_stage_one_refuses_precisions_that_it_cannot_train_in(precision):
    small = AutoencoderConfig((8, 16), layers_per_block=1, codes=8, norm_num_groups=4, mid_block_attention=False)
    module = AutoencoderPretraining(small)
    module._trainer = SimpleNamespace(precision=precision)
    with pytest.raises(UserError, match=f"{precision}.*bf16-mixed"):
        module.setup("fit")
