"""wav2vec 2.0 and HuBERT with small random networks, which transformers itself writes to folders."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from difftalk_pl.data.features import huggingface
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
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert"}[kind]
    settings = getattr(transformers, f"{name}Config")(**{**SMALL, **config})
    network = getattr(transformers, f"{name}Model")(settings)
    network.save_pretrained(folder)
    if normalize is not None:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return network.eval()


def opened(folder, kind="wav2vec2", layer=None):
    return huggingface.open_kind(kind, SpeechModels(speech_model=str(folder), speech_layer=layer, device="cpu"))


def noise(steps, seed=0, rest=0):
    return (np.random.default_rng(seed).standard_normal(steps * STEP + rest) * 3000).astype(np.int16)


@pytest.mark.parametrize("kind, config", [("wav2vec2", {}), ("hubert", LAYER_NORM)])
@pytest.mark.parametrize("layer, normalize", [(None, True), (0, False), (1, True)])
def test_layers_are_those_of_transformers(tmp_path, kind, config, layer, normalize):
    """The sound with half a window before it, prepared by the model's own feature extractor."""
    network, sound = save(tmp_path, kind, normalize, **config), noise(100)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    values = extractor(sound / 32768.0, sampling_rate=16000, return_tensors="pt").input_values.float()
    with torch.no_grad():
        output = network(torch.nn.functional.pad(values, (200, 0)), output_hidden_states=True)
    expected = output.last_hidden_state if layer is None else output.hidden_states[layer]
    features = opened(tmp_path, kind, layer)
    assert features.name == kind and features.channels == 24
    np.testing.assert_allclose(features(sound), expected[0].numpy(), rtol=1e-3, atol=5e-4)


def test_a_step_is_centred_on_its_time(tmp_path, step=40):
    """A click moves the step of its time most; a click between two steps moves both."""
    save(tmp_path, normalize=False, num_conv_pos_embeddings=1, num_conv_pos_embedding_groups=1, **LAYER_NORM)
    features = opened(tmp_path, layer=0)
    silent = features(np.zeros(100 * STEP, np.int16))

    def moved(sample):
        """How much each step moves, on average over clicks around a sample: filters are not symmetric."""
        total = np.zeros(100)
        for away in range(-40, 41, 8):
            sound = np.zeros(100 * STEP, np.int16)
            sound[sample + away] = 30000
            total += np.abs(features(sound) - silent).mean(axis=1)
        return total

    assert np.argmax(moved(step * STEP)) == step
    assert set(np.argsort(moved(step * STEP + STEP // 2))[-2:]) == {step, step + 1}


def test_features_have_two_steps_a_frame(tmp_path):
    save(tmp_path)
    for sound in (noise(0), noise(0, rest=639), noise(100, rest=321), np.zeros(32000, np.int16)):
        features = opened(tmp_path)(sound)
        assert features.shape == (2 * (len(sound) // 640), 24) and np.isfinite(features).all()


@pytest.mark.parametrize("config, largest, mean", [(LAYER_NORM, 0.01, 0.002), ({}, 0.2, 0.02)], ids=["large", "base"])
def test_chunks_bound_the_memory_and_are_close_to_the_whole(tmp_path, monkeypatch, config, largest, mean):
    """Beside the features' deviation."""
    save(tmp_path, **config)
    features, sound, lengths = opened(tmp_path), noise(610), []
    whole = features(sound)
    monkeypatch.setattr(huggingface, "CHUNK", 100)
    monkeypatch.setattr(huggingface, "CONTEXT", 50)
    call = type(features.compute.network).forward
    monkeypatch.setattr(
        features.compute.network,
        "forward",
        lambda x, **options: lengths.append(x.shape[1]) or call(features.compute.network, x, **options),
    )
    difference = np.abs(features(sound) - whole) / whole.std()
    assert difference.max() < largest and difference.mean() < mean
    assert max(lengths) == 199 * STEP + 400


def test_the_hash_is_of_tensors_layer_and_scaling(tmp_path):
    folders = [tmp_path / name for name in ("a", "same", "seed", "loud")]
    for folder, options in zip(folders, ({}, {}, {"seed": 1}, {"normalize": False})):
        save(folder, **options)
    first, same, seed, loud = (opened(folder).model for folder in folders)
    assert first == same and first.sha256 not in (seed.sha256, loud.sha256)
    assert opened(folders[0], layer=2).model == first != opened(folders[0], layer=1).model
    assert first.name == "a, layer 2"


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_old_weight_files_are_read_without_running_code(tmp_path):
    network, sound = save(tmp_path), noise(20)
    expected = opened(tmp_path)(sound)
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(opened(tmp_path)(sound), expected)
    torch.save({"weight": Hostile(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        opened(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_models_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    save(tmp_path / "good")
    save(tmp_path / "hubert", "hubert")
    save(tmp_path / "spoilt")
    weights = load_file(tmp_path / "spoilt" / "model.safetensors")
    weights.pop("encoder.layers.0.attention.k_proj.weight")
    save_file(weights, tmp_path / "spoilt" / "model.safetensors", metadata={"format": "pt"})
    for name, message in (
        ("hubert", "a hubert, expected a wav2vec2"),
        ("spoilt", r"no fitting weights for encoder\.layers\.0\.attention\.k_proj\.weight"),
        ("no/such", r"cannot be loaded .*give the folder .*its hub name, as facebook/wav2vec2"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path / name)
    with pytest.raises(UserError, match=r"--speech_layer 3: .* has layers 0 to 2"):
        opened(tmp_path / "good", layer=3)
    with pytest.raises(UserError, match="hubert need --speech_model: a model's folder or hub name"):
        open_features("hubert", SpeechModels())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"need the package transformers: pip install .*\[transformers\]"):
        opened(tmp_path / "good")
