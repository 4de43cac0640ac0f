"""wav2vec 2.0 and HuBERT with small random networks, which transformers itself writes to folders."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from difftalk_pl.data.features.huggingface import open_kind
from difftalk_pl.data.features.kinds import SpeechModels, open_features
from difftalk_pl.errors import UserError

transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # as the large models
STEP = 320


def save(folder, kind="wav2vec2", normalize=True, seed=0, **config):
    torch.manual_seed(seed)
    if kind == "hubert":
        network = transformers.HubertModel(transformers.HubertConfig(**{**SMALL, **config}))
    else:
        network = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**{**SMALL, **config}))
    network.save_pretrained(folder)
    if normalize is not None:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return network.eval()


def opened(folder, kind="wav2vec2", layer=None):
    return open_kind(kind, SpeechModels(speech_model=str(folder), speech_layer=layer, device="cpu"))


def noise(steps, seed=0, rest=0):
    return (np.random.default_rng(seed).standard_normal(steps * STEP + rest) * 3000).astype(np.int16)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
@pytest.mark.parametrize("config", [{}, LAYER_NORM], ids=["base", "large"])
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_the_layers_are_those_that_transformers_gives(tmp_path, kind, config, layer):
    """The sound with half a window before it, prepared by the model's own feature extractor."""
    network, sound = save(tmp_path, kind, **config), noise(100)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    values = extractor(sound / 32768.0, sampling_rate=16000, return_tensors="pt").input_values.float()
    with torch.no_grad():
        output = network(torch.nn.functional.pad(values, (200, 0)), output_hidden_states=True)
    expected = output.last_hidden_state if layer in (None, 2) else output.hidden_states[layer]
    features = opened(tmp_path, kind, layer)
    assert features.name == kind and features.channels == 24
    np.testing.assert_allclose(features(sound), expected[0].numpy(), atol=2e-4)


@pytest.mark.parametrize("normalize, loudness_matters", [(True, False), (False, True), (None, False)])
def test_the_sound_is_scaled_as_the_model_wants_it(tmp_path, normalize, loudness_matters):
    save(tmp_path, normalize=normalize, **LAYER_NORM)
    features, sound = opened(tmp_path), noise(30)
    change = np.abs(features(sound) - features(2 * sound)).max()
    assert (change > 1e-3) == loudness_matters


@pytest.mark.parametrize("step", [0, 1, 7, 40, 97, 99])
def test_a_step_is_centred_on_its_time(tmp_path, step):
    """A click moves the step of its time most; a click between two steps moves both alike."""
    save(tmp_path, normalize=False, num_conv_pos_embeddings=1, num_conv_pos_embedding_groups=1, **LAYER_NORM)
    features = opened(tmp_path, layer=0)
    silent = features(np.zeros(100 * STEP, np.int16))

    def moved(sample):
        """How much each step moves, on average over clicks here and some samples away: filters are not symmetric."""
        total = np.zeros(100)
        for away in range(-40, 41, 8):
            sound = np.zeros(100 * STEP, np.int16)
            sound[max(0, sample + away)] = 30000
            total += np.abs(features(sound) - silent).mean(axis=1)
        return total

    assert np.argmax(moved(step * STEP)) == step
    if 0 < step < 99:
        assert set(np.argsort(moved(step * STEP + STEP // 2))[-2:]) == {step, step + 1}


@pytest.mark.parametrize(
    "samples, rows", [(0, 0), (639, 0), (640, 2), (1279, 2), (1280, 4), (32000, 100), (32321, 100)]
)
def test_two_steps_a_frame(tmp_path, samples, rows):
    save(tmp_path)
    features = opened(tmp_path)(noise(0, rest=samples))
    assert features.shape == (rows, 24) and features.dtype == np.float32 and np.isfinite(features).all()


def test_silence_is_finite(tmp_path):
    save(tmp_path)
    assert np.isfinite(opened(tmp_path)(np.zeros(32000, np.int16))).all()


def test_what_is_shorter_than_a_chunk_with_its_context_is_heard_whole(tmp_path):
    save(tmp_path)
    features, sound = opened(tmp_path), noise(150)
    whole = features(sound)
    features.chunk, features.context = 100, 25
    np.testing.assert_array_equal(features(sound), whole)


@pytest.mark.parametrize(
    "config, layer, largest, mean",
    [(LAYER_NORM, 0, 1e-5, 1e-6), (LAYER_NORM, 2, 0.01, 0.002), ({}, 0, 0.2, 0.02), ({}, 2, 0.2, 0.02)],
    ids=["large, no attention", "large", "base, no attention", "base"],
)
def test_chunks_are_close_to_the_whole(tmp_path, config, layer, largest, mean):
    """Beside the features' deviation. Without attention the context is all that a step hears, if nothing is normalised
    over the whole sound, as the base models do.
    """
    save(tmp_path, **config)
    features, sound = opened(tmp_path, layer=layer), noise(610)
    whole = features(sound)
    features.chunk, features.context = 100, 50
    difference = np.abs(features(sound) - whole) / whole.std()
    assert difference.shape == (610, 24) and difference.max() < largest and difference.mean() < mean
    assert np.abs(whole[1:] - whole[:-1]).mean() > 0.3 * whole.std()


def test_memory_does_not_follow_the_length(tmp_path, monkeypatch):
    save(tmp_path)
    features, heard = opened(tmp_path), []
    features.chunk, features.context = 100, 20
    network = features.network
    monkeypatch.setattr(
        type(network), "__call__", lambda self, x, **kw: heard.append(x.shape[1]) or self.forward(x, **kw)
    )
    features(noise(1000))
    assert len(heard) == 10 and max(heard) == 139 * STEP + 400


def test_the_hash_is_of_tensors_layer_and_scaling(tmp_path):
    folders = [tmp_path / name for name in ("a", "same", "seed", "loud")]
    for folder, options in zip(folders, ({}, {}, {"seed": 1}, {"normalize": False})):
        save(folder, **options)
    first, same, seed, loud = (opened(folder).model for folder in folders)
    assert first == same and first.sha256 not in (seed.sha256, loud.sha256)
    assert opened(folders[0], layer=2).model == first != opened(folders[0], layer=1).model
    assert first.name == "a, layer 2" and first.channels == 24


def test_old_weight_files_are_read_without_unpickling(tmp_path):
    network, sound = save(tmp_path), noise(20)
    expected = opened(tmp_path)(sound)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    np.testing.assert_array_equal(opened(tmp_path)(sound), expected)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_weight_file_runs_nothing(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"weight": Hostile(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        opened(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_used_is_said(tmp_path, monkeypatch):
    save(tmp_path / "good")
    save(tmp_path / "hubert", "hubert")
    save(tmp_path / "spoilt")
    weights = load_file(tmp_path / "spoilt" / "model.safetensors")
    weights.pop("encoder.layers.0.attention.k_proj.weight")
    save_file(weights, tmp_path / "spoilt" / "model.safetensors", metadata={"format": "pt"})
    save(tmp_path / "truncated")
    path = tmp_path / "truncated" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    for name, message in (
        ("hubert", "a hubert, expected a wav2vec2"),
        ("spoilt", r"no fitting weights for encoder\.layers\.0\.attention\.k_proj\.weight"),
        ("truncated", "cannot be loaded"),
        ("no/such", r"cannot be loaded .*give the folder .*or, with a network, its hub name, as facebook/wav2vec2"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path / name)
    with pytest.raises(UserError, match=r"--speech-layer 3: .* has layers 0 to 2"):
        opened(tmp_path / "good", layer=3)
    with pytest.raises(UserError, match="hubert need --speech-model: a model's folder or hub name"):
        open_features("hubert", SpeechModels())


def test_without_a_network_the_hub_is_named_as_one_of_two_ways(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"facebook/none-such: cannot be loaded .*folder .*hub name"):
        opened("facebook/none-such")


def test_without_the_package_the_line_that_installs_it_is_given(tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"need the package transformers: pip install .*\[transformers\]"):
        opened(tmp_path)
