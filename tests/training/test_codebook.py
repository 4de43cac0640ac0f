"""The codebook in real fits: moving means, revival, resuming, and what a checkpoint holds of it."""

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig
from difftalk_pl.models.codebook import Codebook
from difftalk_pl.training.autoencoder import AutoencoderPretraining
from difftalk_pl.training.codebook import CodebookTraining
from difftalk_pl.training.weights import read_weights
from tests.training.test_autoencoder import logged

ALL = {"update": "ema", "ema_decay": 0.8, "revive_after": 2, "revive_below": 0.05}


def over(codebook, steps=4, **trainer):
    trainer = {"max_steps": steps, "limit_val_batches": 0, **trainer}
    return {"model": {"init_args": {"codebook": codebook}}, "trainer": trainer}


def state(runner, run):
    return torch.load(runner.checkpoint(run), weights_only=True)["state_dict"]


@pytest.mark.parametrize("codebook", [ALL, {"warmup": 4, "vectors": 512, **ALL}, {"revive_after": 2}])
def test_a_resumed_run_has_the_codebook_of_an_uninterrupted_one(runner, codebook):
    runner("fit", "autoencoder", "whole", over(codebook, 7))
    runner("fit", "autoencoder", "parts", over(codebook, 3))
    runner("fit", "autoencoder", "parts", over(codebook, 7))
    whole, parts = state(runner, "whole"), state(runner, "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def test_moving_means_take_the_gradient_from_the_codes_alone():
    config = AutoencoderConfig((8, 16), layers_per_block=1, codes=8, norm_num_groups=4, mid_block_attention=False)
    network = AutoencoderPretraining(config, codebook=Codebook(update="ema")).autoencoder
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    quantised = network.quantise(z)
    (pull,) = torch.autograd.grad(quantised.codebook_loss, z)
    torch.testing.assert_close(pull, 2 * (z - quantised.z_q).detach() / z.numel())
    assert not network.codes.requires_grad


def test_codes_follow_the_encoder_and_the_weights_stay_those_of_a_plain_autoencoder(runner):
    cli = runner("fit", "autoencoder", "ema", over({"update": "ema", "ema_decay": 0.5}, 12))
    weights = read_weights(runner.checkpoint("ema"))
    assert weights.state.keys() == Autoencoder(cli.model.autoencoder.config).state_dict().keys()
    network = weights.autoencoder()
    image = torch.cat([batch["image"] for batch, _ in zip(cli.datamodule.train_dataloader(), range(4))])
    with torch.no_grad():
        quantised = network.quantise(network.encode(image))
        z = network.encode(image).movedim(1, -1).flatten(0, -2)
    counts = torch.bincount(quantised.indices.flatten(), minlength=32)
    code = int(counts.argmax())
    members = z[quantised.indices.flatten() == code]
    assert (members.mean(0) - network.codes[code]).norm() < 0.3 * z.std(0).norm()


def test_a_start_that_uses_few_codes_uses_more_with_revival(runner):
    """512 codes: when this was written 8 % were used in the first epoch, and all with revival."""

    def an_epoch(run, codebook):
        experiment = over(codebook, 40)
        experiment["model"]["init_args"]["autoencoder"] = {"codes": 512}
        runner("fit", "autoencoder", run, experiment)
        names = ("codebook_usage", "codebook_perplexity", "revived_codes")
        return [logged(runner.folder / run, f"train/{name}") for name in names]

    (few,), (poor,), nothing = an_epoch("published", {})
    (many,), (rich,), (revived,) = an_epoch("revived", {"revive_after": 5})
    assert few < 0.2 and many > 0.9 and rich > 5 * poor
    assert nothing == [] and revived > 512 / 2


def test_a_run_goes_on_with_another_way_of_keeping_its_codebook(runner):
    runner("fit", "autoencoder", "change", over({}, 2))
    codes = state(runner, "change")["autoencoder.vq.quantize.embedding.weight"]
    runner("fit", "autoencoder", "change", over(ALL, 4))
    changed = state(runner, "change")
    assert not torch.equal(codes, changed["autoencoder.vq.quantize.embedding.weight"])
    assert changed["codebook.keeper.usage"].sum() > 0
    cli = runner("fit", "autoencoder", "change", over({}, 6))
    assert cli.trainer.global_step == 6 and "codebook.keeper.usage" not in state(runner, "change")


def test_a_checkpoint_from_before_goes_on_in_the_middle_of_its_warm_up(runner):
    warm = {"warmup": 4, "vectors": 512}
    runner("fit", "autoencoder", "old", over(warm, 3))
    path = runner.checkpoint("old")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["warmup_cells"] = checkpoint["state_dict"].pop("codebook.cells")
    torch.save(checkpoint, path)
    runner("fit", "autoencoder", "old", over(warm, 6))
    runner("fit", "autoencoder", "new", over(warm, 6))
    old, new = state(runner, "old"), state(runner, "new")
    assert all(torch.equal(value, old[name]) for name, value in new.items())


@pytest.mark.parametrize(
    "codebook, collected", [({"warmup": 6, "vectors": 31}, 30), ({"warmup": 9, "vectors": 34}, 30)]
)
def test_a_warm_up_that_cannot_fill_the_codebook_is_refused_before_it_starts(runner, codebook, collected):
    said = rf"codebook\.vectors {codebook['vectors']}: .* collects {collected} for 32 codes; give more, such as 320"
    with pytest.raises(UserError, match=said):
        runner("fit", "autoencoder", "few", over(codebook))
    assert not runner.checkpoint("few").exists()


@pytest.mark.parametrize("warmup", [1, 5, 9, 400])
def test_ten_vectors_for_a_code_are_always_enough(warmup):
    CodebookTraining(Codebook(warmup=warmup, vectors=320), 32, 3)


def test_too_few_distinct_outputs_end_the_warm_up_in_one_line():
    """An encoder that has collapsed to one point."""
    constant = AutoencoderPretraining(AutoencoderConfig((8, 8, 16), 1, 3, 32, 4, False)).autoencoder
    torch.nn.init.zeros_(constant.vq.quant_conv.weight)
    training = CodebookTraining(Codebook(warmup=2, vectors=512), 32, 3)
    output = constant(torch.rand(2, 3, 32, 32), quantise=False)
    training.follow(constant, output, 0)
    with pytest.raises(UserError, match=r"codebook\.warmup 2: it ends without a codebook: 1 distinct vectors"):
        training.follow(constant, output, 1)


def test_a_wrong_setting_is_named_before_anything_is_built(runner):
    with pytest.raises(UserError, match=r"ema_decay 2\.0"):
        runner("fit", "autoencoder", "wrong", over({"ema_decay": 2.0}))
