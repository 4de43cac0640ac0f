"""All tensors or none, finite ones, and no fit from weights alone."""

import pytest
import torch
from torch import nn

from difftalk_pl.errors import UserError
from difftalk_pl.training.strict import load_into, refuse_not_finite
from difftalk_pl.training.weights import read_weights
from tests.published import refused, run


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.ones(2, 2, dtype=torch.complex64), "weight complex numbers in place of floats"),
        (torch.ones(2, 2, dtype=torch.int8), "weight whole numbers in place of floats"),
        (torch.eye(2).to_sparse(), "weight sparse in place of floats"),
    ],
)
def test_other_kinds_of_numbers_are_named(tmp_path, value, found):
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    with pytest.raises(UserError, match=f"1 of another kind: {found}"):
        load_into(network, {"weight": value, "bias": torch.zeros(2)}, tmp_path)
    assert torch.equal(network.weight, before)


def test_floats_of_another_width_are_floats(tmp_path):
    network = nn.Linear(2, 2)
    load_into(network, {"weight": torch.ones(2, 2).half(), "bias": torch.zeros(2).double()}, tmp_path)
    assert network.weight.dtype == torch.float32 and torch.equal(network.weight, torch.ones(2, 2))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_that_are_not_finite_are_named(tmp_path, kind):
    state = {"a": torch.ones(3).to(kind), "b": torch.tensor([1.0, torch.nan]).to(kind), "n": torch.ones(1).long()}
    with pytest.raises(UserError, match=r"1 tensors hold numbers that are not finite.*: b$"):
        refuse_not_finite(state, tmp_path)
    del state["b"]
    refuse_not_finite(state, tmp_path)


def test_a_broken_checkpoint_of_ours_is_not_imported(codec, tmp_path, capsys):
    content = torch.load(codec, weights_only=True)
    content["state_dict"]["autoencoder.vq.quant_conv.bias"][0] = torch.inf
    torch.save(content, tmp_path / "broken.ckpt")
    line = refused(capsys, tmp_path / "broken.ckpt", "--out", tmp_path / "out")
    assert "broken.ckpt: 1 tensors hold numbers that are not finite" in line and "vq.quant_conv.bias" in line
    assert not (tmp_path / "out").exists()


def test_fit_does_not_go_on_from_weights_alone(codec, runner, tmp_path):
    assert run(codec, "--out", tmp_path / "vq.ckpt") == 0
    with pytest.raises(UserError, match=r"vq\.ckpt: holds weights and no optimizer.*init_args\.init_from .*vq\.ckpt$"):
        runner("fit", "autoencoder", "first", {"ckpt_path": str(tmp_path / "vq.ckpt")})
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": {"max_steps": 1, "limit_val_batches": 0}}
    runner("fit", "diffusion", "talk", over)
    assert run(runner.checkpoint("talk"), "--out", tmp_path / "talk.ckpt") == 0
    with pytest.raises(UserError, match=r"talk\.ckpt: holds weights and no optimizer"):
        runner("fit", "diffusion", "second", over | {"ckpt_path": str(tmp_path / "talk.ckpt")})
    given = {"model": {"init_args": {"autoencoder": str(codec), "init_from": str(tmp_path / "talk.ckpt")}}}
    started = runner("fit", "diffusion", "third", over | given | {"trainer": {"max_steps": 0}}).model
    assert started.weights_hash() == read_weights(tmp_path / "talk.ckpt").hash
