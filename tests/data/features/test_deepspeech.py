"""DeepSpeech 0.1.0 against TensorFlow's numbers, a cell written in numpy, and the published input."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from python_speech_features import mfcc

from difftalk_pl.data.features import deepspeech as module
from difftalk_pl.data.features import kinds
from difftalk_pl.data.features.deepspeech import CELL, deepspeech_input, load_deepspeech
from difftalk_pl.data.features.kinds import SpeechModels, open_features
from difftalk_pl.errors import UserError
from tests.frozen import constants, deepspeech, deepspeech_constants, write_deepspeech

GOLDEN = Path(__file__).parents[2] / "golden" / "deepspeech_input.npz"
FLOAT_TOLERANCE = 5e-5


@pytest.mark.oracle
def test_the_network_equals_tensorflow(oracles, record_difference):
    oracle = np.load(oracles / "deepspeech_hidden96.npz")
    with torch.inference_mode():
        logits = load_deepspeech(oracles / "deepspeech_hidden96.pb")(torch.from_numpy(oracle["input"]))[0].numpy()
    record_difference("deepspeech logits", np.abs(logits - oracle["logits"][:, 0]).max(), FLOAT_TOLERANCE)


@pytest.mark.oracle
def test_the_input_equals_the_published_one(oracles, record_difference):
    oracle = np.load(oracles / "audio_windows.npz")
    found = deepspeech_input(oracle["audio_int16"])
    assert found.shape == oracle["deepspeech_input"].shape and found.dtype == np.float32
    record_difference("deepspeech input", np.abs(found - oracle["deepspeech_input"]).max(), FLOAT_TOLERANCE)


def test_the_input_equals_the_published_one_at_some_steps():
    golden = np.load(GOLDEN)
    np.testing.assert_allclose(deepspeech_input(golden["audio_int16"])[golden["steps"]], golden["input"], atol=1e-5)


@pytest.mark.parametrize("samples", [300, 401, 1120, 4801, 48321])
def test_mfcc_in_pieces_are_those_of_the_whole(monkeypatch, samples):
    sound = np.random.default_rng(6).integers(-9000, 9000, samples).astype(np.int16)
    for frames in (1, 2, 7, 30):
        monkeypatch.setattr(kinds, "PIECE", frames)
        np.testing.assert_allclose(kinds.coefficients(sound, 160), mfcc(sound, 16000, numcep=26), rtol=1e-9)


def test_the_network_equals_the_cell_in_numpy(tmp_path):
    """In float64, with activations that are clipped at 0 and at 20."""
    network = load_deepspeech(write_deepspeech(tmp_path / "graph.pb"))
    inputs = np.random.default_rng(1).standard_normal((2, 25, 494)).astype(np.float32)
    expected = np.stack([deepspeech(deepspeech_constants(), row) for row in inputs])
    np.testing.assert_allclose(network(torch.from_numpy(inputs)).numpy(), expected, rtol=1e-4, atol=2e-4)


def test_features_have_two_steps_a_frame(tmp_path):
    kind = open_features("deepspeech", SpeechModels(write_deepspeech(tmp_path / "graph.pb"), device="cpu"))
    sound = np.random.default_rng(2).integers(-3000, 3000, 48321).astype(np.int16)
    features = kind(sound)
    assert features.shape == (150, 29) and features.dtype == np.float32
    expected = deepspeech(deepspeech_constants(), deepspeech_input(sound))[:150]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=2e-4)
    assert [len(kind(sound[:samples])) for samples in (0, 639, 640, 1279, 1280)] == [0, 0, 2, 2, 4]
    assert np.isfinite(kind(np.zeros(32000, np.int16))).all()


WHOLE = deepspeech_constants()


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "No such file"),
        (b"", "'h1'"),
        (b"<!DOCTYPE html><html>Not Found</html>", "DecodeError"),
        (constants(WHOLE)[:-100], "DecodeError"),
        (constants({"lstm_fused_cell/kernel": np.zeros((4, 4)), "h1": np.zeros((494, 4))}), "'h2'"),
        (constants({**WHOLE, CELL.format("bw", "bias"): np.zeros(5)}), "dimension"),
        (constants({**WHOLE, "h1": np.zeros((26, 6))}), "size mismatch for dense1"),
    ],
)
def test_other_files_are_refused_with_the_remedy(tmp_path, content, reason):
    path = tmp_path / "graph.pb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"(?s)graph\.pb: .*{re.escape(reason)}.*models/output_graph\.pb.*v0\.1\.0"):
        load_deepspeech(path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_accelerator_gives_the_same(tmp_path):
    path = write_deepspeech(tmp_path / "graph.pb", hidden=64)
    sound = np.random.default_rng(3).integers(-9000, 9000, 48000).astype(np.int16)
    gpu, cpu = (open_features("deepspeech", SpeechModels(path, device=device))(sound) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(gpu, cpu, atol=2e-3 * np.abs(cpu).max())


def test_a_clip_in_chunks_has_the_scores_of_the_whole(monkeypatch):
    network, x = module.DeepSpeech(hidden=8).eval(), torch.randn(1, 50, module.INPUTS)
    whole = network(x)
    monkeypatch.setattr(module, "CHUNK", 7)
    torch.testing.assert_close(network(x), whole, rtol=1e-5, atol=1e-5)
