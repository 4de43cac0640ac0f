"""Checkpoints and exported folders."""

import json

import pytest
import torch

from difftalk_pl.errors import UserError
from difftalk_pl.training.weights import Weights, export, load_into, read_weights


def test_an_exported_folder_is_the_checkpoint(runner, codec, tmp_path):
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": {"max_steps": 2}}
    runner("fit", "diffusion", "talk", over)
    export(runner.checkpoint("talk"), tmp_path / "model")
    before, after = read_weights(runner.checkpoint("talk")), read_weights(tmp_path / "model")
    assert after.hash == before.hash and after.codec.hash == before.codec.hash == read_weights(codec).hash
    assert after.config == before.config and after.data.mask == "mouth_safe" and after.data.size == 64
    assert after.schedule.steps == 1000
    z, concat, context = torch.randn(1, 3, 16, 16), torch.randn(1, 6, 16, 16), torch.randn(1, 1, 128)
    from difftalk_pl.models.conditioning import Condition

    with torch.no_grad():
        one, other = (w.difftalk()(z, torch.tensor([5]), Condition(context, concat)) for w in (before, after))
    assert torch.equal(one, other)


def test_half_precision_halves_the_file_and_is_read_as_floats(codec, tmp_path):
    export(codec, tmp_path / "float")
    export(codec, tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("float", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    restored = Weights.from_pretrained(tmp_path / "half")
    assert all(value.dtype == torch.float32 for value in restored.state.values() if value.is_floating_point())
    assert json.loads((tmp_path / "half" / "config.json").read_text())["hash"] == restored.hash


def test_numbers_too_large_for_16_bits_stay_whole(codec, tmp_path):
    weights = read_weights(codec)
    name = next(iter(weights.state))
    weights.state[name] = torch.full_like(weights.state[name], 1e5)
    weights.save_pretrained(tmp_path / "half", half=True)
    assert torch.equal(Weights.from_pretrained(tmp_path / "half").state[name], weights.state[name])


def test_stage_one_is_no_talking_head(codec):
    with pytest.raises(UserError, match="stage 1"):
        read_weights(codec).difftalk()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.ckpt"):
        read_weights(path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": {}, "bomb": Bomb()}, tmp_path / "bomb.ckpt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_weights(tmp_path / "bomb.ckpt")
    assert not (tmp_path / "executed").exists()


def test_a_foreign_checkpoint_and_a_folder_without_weights(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1)}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="no checkpoint of difftalk_pl"):
        read_weights(tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=r"config\.json or model\.safetensors is missing"):
        read_weights(tmp_path)


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_refused_by_name(codec, tmp_path, damaged):
    export(codec, tmp_path / "model")
    (tmp_path / "model" / damaged).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match="model: not a readable model folder"):
        read_weights(tmp_path / "model")


def test_the_hash_follows_every_tensor():
    state = {"a": torch.zeros(2), "b": torch.ones(1)}
    changed = {"a": torch.zeros(2), "b": torch.full((1,), 1 + 1e-6)}
    assert Weights("autoencoder", {}, state).hash != Weights("autoencoder", {}, changed).hash
    assert Weights("autoencoder", {}, dict(reversed(state.items()))).hash == Weights("autoencoder", {}, state).hash


def test_the_hash_is_that_of_the_tensors_alone():
    state = {"a": torch.arange(3.0)}
    assert Weights("autoencoder", {"heads": 1}, state).hash == Weights("autoencoder", {"heads": 2}, state).hash
    halves = {"a": torch.arange(3.0).bfloat16()}
    assert Weights("autoencoder", {}, halves).hash == Weights("autoencoder", {}, state).hash  # as a folder reads them


def test_a_folder_whose_weights_were_exchanged_is_refused(codec, tmp_path):
    export(codec, tmp_path / "one")
    export(codec, tmp_path / "two", half=True)
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(UserError, match=r"not the one that config\.json was written with"):
        read_weights(tmp_path / "one")


def test_a_model_card_goes_with_the_folder(codec, tmp_path):
    weights = Weights.from_pretrained(codec)
    weights.origin = "a test"
    weights.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    count = sum(value.numel() for value in weights.autoencoder().parameters())
    assert card.startswith("---\nlibrary_name: difftalk_pl\n") and f"`{weights.hash}`" in card
    assert f"| autoencoder | {count:,} |" in card and "Made from: a test." in card
    assert "| autoencoder.codes | 32 |" in card
    assert Weights.from_pretrained(str(tmp_path / "model")).origin == "a test"


def test_a_repository_of_the_hub_is_found_in_its_cache(codec, tmp_path, monkeypatch):
    """What `hf download OWNER/NAME` leaves behind, read without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--vq"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    export(codec, repository / "snapshots" / ("0" * 40))
    assert Weights.from_pretrained("someone/vq").hash == read_weights(codec).hash
    with pytest.raises(UserError, match="someone/other: neither a folder or file here nor a repository of the hub"):
        Weights.from_pretrained("someone/other")
    with pytest.raises(UserError, match="no such folder: neither"):
        Weights.from_pretrained("no such folder")


def test_what_does_not_fit_is_listed_by_name(codec):
    weights = read_weights(codec)
    state = dict(weights.state)
    state["vq.extra"] = state.pop("vq.quant_conv.bias")
    state["vq.quant_conv.weight"] = torch.zeros(3, 3)
    network = weights.autoencoder()
    with pytest.raises(UserError) as caught:
        load_into(network, state, codec)
    assert str(caught.value) == (
        f"{codec}: weights do not fit the configured network: 1 missing: vq.quant_conv.bias; 1 unexpected: vq.extra; "
        "1 of another shape: vq.quant_conv.weight (3, 3) in place of (3, 3, 1, 1)"
    )


def test_a_network_has_its_own_copy_of_the_tensors(codec):
    weights = read_weights(codec)
    before = weights.hash
    for value in weights.autoencoder().parameters():
        value.zero_()
    assert weights.hash == before
