"""Checkpoints and exported folders."""

from pathlib import Path

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.training.weights import Weights, export, load_into, read_weights

DEMO = Path(__file__).parents[2] / "experiments" / "demo" / "weights"


@torch.no_grad()
def test_an_exported_folder_is_the_checkpoint(fitted_diffusion, codec, tmp_path):
    checkpoint = fitted_diffusion / "checkpoints" / "last.ckpt"
    for _ in range(2):  # into its own folder again
        export(checkpoint, tmp_path / "model")
    before, after = read_weights(checkpoint), Weights.from_pretrained(tmp_path / "model")
    assert after.hash == before.hash and after.codec.hash == before.codec.hash == read_weights(codec).hash
    assert after.config == before.config and after.schedule.steps == 1000
    assert (after.data.features, after.data.mask, after.data.size) == ("mfcc", "mouth_safe", 64)
    z, concat, context = torch.randn(1, 3, 16, 16), torch.randn(1, 6, 16, 16), torch.randn(1, 1, 128)
    one, other = (w.difftalk()(z, torch.tensor([5]), Condition(context, concat)) for w in (before, after))
    assert torch.equal(one, other)
    with pytest.raises(UserError, match=r"weights of an autoencoder \(stage 1\); a diffusion model"):
        read_weights(codec).difftalk()


@pytest.mark.parametrize(
    ("folder", "digest"), [(".", "13ffa372dd19"), ("autoencoder", "e2867e4273de"), ("syncnet", "f7ec4ef6f792")]
)
def test_shipped_weights_load_unchanged(folder, digest):
    weights = read_weights(DEMO / folder)
    assert weights.hash == digest
    assert sum(parameter.numel() for parameter in weights.build(weights.stage).parameters()) > 100_000


def test_half_precision_halves_the_file_and_is_read_as_floats(codec, tmp_path):
    weights = read_weights(codec)
    name = next(iter(weights.state))
    weights.state[name] = torch.full_like(weights.state[name], 1e5)  # too large for 16 bits
    for half in (False, True):
        weights.save_pretrained(tmp_path / str(half), half)
    sizes = [(tmp_path / str(half) / "model.safetensors").stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    restored = read_weights(tmp_path / "True")
    assert all(value.dtype == torch.float32 for value in restored.state.values() if value.is_floating_point())
    assert torch.equal(restored.state[name], weights.state[name])
    (tmp_path / "True" / "model.safetensors").replace(tmp_path / "False" / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors does not belong to config\.json"):
        read_weights(tmp_path / "False")


def test_other_files_and_folders_are_refused_by_name(codec, tmp_path):
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "foreign.ckpt")
    export(codec, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("version https://git-lfs.github.com/spec/v1")
    for name, message in {
        "text.ckpt": "not a readable checkpoint",
        "foreign.ckpt": "no checkpoint of this version",
        "absent.ckpt": "no such file",
        "model": "not a readable model folder",
    }.items():
        with pytest.raises(UserError, match=f"{name}: {message}"):
            read_weights(tmp_path / name)


def test_the_hash_is_that_of_names_and_tensors_alone():
    state = {"a": torch.zeros(2), "b": torch.ones(1)}
    base = Weights("autoencoder", {}, state).hash
    assert Weights("autoencoder", {"heads": 1}, dict(reversed(state.items()))).hash == base
    assert Weights("autoencoder", {}, {"a": torch.zeros(2), "b": torch.full((1,), 1 + 1e-6)}).hash != base


def test_loading_takes_all_tensors_or_none(codec):
    weights = read_weights(codec)
    network = weights.autoencoder()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    missing = {name: value for name, value in weights.state.items() if name != "vq.quant_conv.bias"}
    broken = weights.state | {"vq.quant_conv.bias": torch.full((3,), torch.nan)}
    for state, message in {"missing": (missing, "Missing key"), "broken": (broken, "not finite")}.values():
        with pytest.raises(UserError, match=rf"{message}.*vq\.quant_conv\.bias"):
            load_into(network, state, codec)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for parameter in network.parameters():
        parameter.zero_()
    assert weights.hash == read_weights(codec).hash, "a network has its own copy of the tensors"


def test_a_repository_of_the_hub_is_found_in_its_cache(codec, tmp_path, monkeypatch):
    """The files that `hf download OWNER/NAME` leaves behind, read without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--vq"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    export(codec, repository / "snapshots" / ("0" * 40))
    assert Weights.from_pretrained("someone/vq").hash == read_weights(codec).hash
    with pytest.raises(UserError, match="someone/other: neither a file or folder here nor a repository of the hub"):
        Weights.from_pretrained("someone/other")
