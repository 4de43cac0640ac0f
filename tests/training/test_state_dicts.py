"""Named tensors, wherever a training program put them."""

import collections

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.training.state_dicts import tensors
from difftalk_pl.training.weights import read_weights
from tests.published import first_stage, refused, run, save

STATE = {"a": torch.ones(2), "b.c": torch.zeros(1)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}
WRAPPED = {f"module.{name}": value for name, value in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "ema": STATE, "epoch": 3},
        {"model": collections.OrderedDict(STATE), "optimizer": OPTIMIZER, "epoch": 3, "empty": {}},
        WRAPPED,
        {"state_dict": WRAPPED},
        {"net": WRAPPED, "step": 1},
    ],
    ids=["bare", "state_dict", "one entry", "parallel", "parallel below", "parallel in an entry"],
)
def test_a_state_dict_is_found(content):
    found = tensors(content)
    assert list(found) == list(STATE) and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_a_prefix_of_some_names_only_is_part_of_them():
    assert set(tensors({"module.a": torch.ones(1), "b": torch.ones(1)})) == {"module.a", "b"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"model": STATE, "ema": STATE}, "several state dicts, model, ema: save the one"),
        ({"model": STATE, "a": torch.ones(1)}, "model is no tensors"),
        ({"model": {"inner": STATE}}, "model is no tensors"),
        ({"state_dict": [1]}, "holds a list, not named tensors"),
        ({"a": torch.eye(3).to_sparse()}, "1 tensors are sparse or quantised.*: a"),
        (
            {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
            "1 tensors are sparse or quantised.*: a",
        ),
    ],
)
def test_what_is_none_is_named(content, complaint):
    with pytest.raises(UserError, match=complaint):
        tensors(content)


def test_the_precision_of_the_noise_schedule_is_kept():
    found = tensors({"betas": torch.ones(2).half(), "a": torch.ones(2).bfloat16(), "n": torch.ones(2).int()})
    assert [found[name].dtype for name in ("betas", "a", "n")] == [torch.float16, torch.float32, torch.int32]


def test_an_entry_of_a_wrapped_network_is_imported(tmp_path, capsys):
    state = first_stage(widths=(32, 32), blocks=1)
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "wrapped.pth")
    plain = save(state, tmp_path / "plain.ckpt")
    assert run(tmp_path / "wrapped.pth", "--out", tmp_path / "one") == run(plain, "--out", tmp_path / "two") == 0
    assert read_weights(tmp_path / "one").hash == read_weights(tmp_path / "two").hash
    line = refused(capsys, tmp_path / "one" / "model.safetensors", "--out", tmp_path / "three")
    assert f"made by export: give the folder {tmp_path / 'one'}" in line
