"""DeepSpeech 0.1.0: held against TensorFlow's numbers, a cell written out in numpy, and the published input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from python_speech_features import mfcc

from difftalk_pl.data.features import deepspeech as module
from difftalk_pl.data.features.deepspeech import (
    CELL,
    DeepSpeech,
    coefficients,
    deepspeech_input,
    load_deepspeech,
    open_kind,
)
from difftalk_pl.data.features.kinds import SpeechModels, open_features
from difftalk_pl.data.features.windows import audio_windows
from difftalk_pl.errors import UserError
from tests.frozen import constants, deepspeech, deepspeech_constants, node, write_deepspeech

GOLDEN = Path(__file__).parents[2] / "golden" / "deepspeech_input.npz"
FLOAT_TOLERANCE = 5e-5


@pytest.mark.oracle
def test_the_network_is_tensorflows(oracles, record_difference):
    oracle = np.load(oracles / "deepspeech_hidden96.npz")
    network = load_deepspeech(oracles / "deepspeech_hidden96.pb")
    with torch.inference_mode():
        logits = network(torch.from_numpy(oracle["input"]))[0].numpy()
        ragged = network(torch.from_numpy(oracle["ragged_input"]), torch.from_numpy(oracle["ragged_lengths"])).numpy()
    record_difference("deepspeech logits", np.abs(logits - oracle["logits"][:, 0]).max(), FLOAT_TOLERANCE)
    difference = np.abs(ragged - oracle["ragged_logits"].transpose(1, 0, 2))
    for row, length in enumerate(oracle["ragged_lengths"]):
        record_difference("deepspeech logits, ragged", difference[row, :length].max(), FLOAT_TOLERANCE)


@pytest.mark.oracle
def test_the_input_is_the_published_one(oracles, record_difference):
    oracle = np.load(oracles / "audio_windows.npz")
    found = deepspeech_input(oracle["audio_int16"])
    assert found.shape == oracle["deepspeech_input"].shape and found.dtype == np.float32
    record_difference("deepspeech input", np.abs(found - oracle["deepspeech_input"]).max(), FLOAT_TOLERANCE)


def test_the_input_is_the_published_one_at_some_steps():
    golden = np.load(GOLDEN)
    np.testing.assert_allclose(deepspeech_input(golden["audio_int16"])[golden["steps"]], golden["input"], atol=1e-5)


@pytest.mark.parametrize("samples", [300, 400, 401, 1120, 4800, 4801, 5040, 48321])
def test_the_input_of_a_long_sound_is_made_in_pieces(monkeypatch, samples):
    """The coefficients of the whole, but for the rounding of products of other sizes."""
    sound = np.random.default_rng(6).integers(-9000, 9000, samples).astype(np.int16)
    for frames in (1, 2, 7, 30):
        monkeypatch.setattr(module, "PIECE", frames)
        np.testing.assert_allclose(coefficients(sound), mfcc(sound, 16000, numcep=26), rtol=0, atol=1e-11)


def test_the_input_lays_19_steps_side_by_side():
    sound = np.random.default_rng(0).integers(-9000, 9000, 40 * 640).astype(np.int16)
    kept = np.concatenate([np.zeros((9, 26)), mfcc(sound, 16000, numcep=26)[::2], np.zeros((9, 26))])
    windows = np.array([np.concatenate([kept[step + k] for k in range(19)]) for step in range(80)])
    np.testing.assert_allclose(deepspeech_input(sound), (windows - windows.mean()) / windows.std(), atol=1e-5)


def test_the_network_is_the_cell_written_out(tmp_path):
    """In numpy and float64, with activations that reach the clipping at 0 and at 20."""
    network = load_deepspeech(write_deepspeech(tmp_path / "graph.pb"))
    inputs = np.random.default_rng(1).standard_normal((2, 25, 494)).astype(np.float32)
    expected = np.stack([deepspeech(deepspeech_constants(), row) for row in inputs])
    np.testing.assert_allclose(network(torch.from_numpy(inputs)).numpy(), expected, atol=1e-4)
    shorter = network(torch.from_numpy(inputs), torch.tensor([9, 25])).numpy()
    np.testing.assert_allclose(shorter[0, :9], deepspeech(deepspeech_constants(), inputs[0, :9]), atol=1e-4)
    np.testing.assert_allclose(shorter[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 7, 25, 3000])
def test_chunks_give_what_the_whole_gives(tmp_path, monkeypatch, chunk):
    """Clips of different lengths, and no layer sees more steps at once than a chunk has."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    network = load_deepspeech(write_deepspeech(tmp_path / "graph.pb"))
    seen = []
    for layer in network.children():
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0][..., 0].numel()))
    inputs = np.random.default_rng(4).standard_normal((3, 25, 494)).astype(np.float32)
    lengths = [25, 1, 14]
    scores = network(torch.from_numpy(inputs), torch.tensor(lengths)).numpy()
    for row, length in enumerate(lengths):
        expected = deepspeech(deepspeech_constants(), inputs[row, :length])
        np.testing.assert_allclose(scores[row, :length], expected, atol=1e-4)
    assert max(seen) == min(max(chunk, 3) // 3 * 3, 75)


def test_a_batch_is_the_same_as_one_by_one(tmp_path):
    """Whatever else is in it: neither padding nor neighbours show; what is too short for a frame has no steps."""
    kind = open_kind("deepspeech", SpeechModels(write_deepspeech(tmp_path / "graph.pb", hidden=48), device="cpu"))
    for weights in kind.network.parameters():
        weights.div_(weights.shape[-1] ** 0.5)  # of a usual size, so that the layers do not amplify rounding
    random = np.random.default_rng(5)
    sounds = [(random.standard_normal(count) * 4000).astype(np.int16) for count in (32000, 600, 9600, 48321, 640, 0)]
    batch = kind.batch(sounds)
    assert [len(steps) for steps in batch] == [100, 0, 30, 150, 2, 0]
    for steps, sound in zip(batch, sounds, strict=True):
        np.testing.assert_allclose(steps, kind(sound), rtol=0, atol=1e-5)
    assert batch[0].std(axis=0).min() > 1e-3
    assert kind.batch([]) == []


@pytest.mark.parametrize(
    "samples, rows", [(0, 0), (639, 0), (640, 2), (1279, 2), (1280, 4), (48000, 150), (48321, 150)]
)
def test_two_steps_a_frame_on_the_grid_of_the_windows(tmp_path, samples, rows):
    kind = open_kind("deepspeech", SpeechModels(write_deepspeech(tmp_path / "graph.pb"), device="cpu"))
    sound = np.random.default_rng(2).integers(-3000, 3000, samples).astype(np.int16)
    features = kind(sound)
    assert features.shape == (rows, 29) and features.dtype == np.float32
    if rows == 150:
        expected = deepspeech(deepspeech_constants(), deepspeech_input(sound))[:150]
        np.testing.assert_allclose(features, expected, atol=1e-4)
        windows = audio_windows(features, np.arange(75))  # the last step counts as beyond the clip
        np.testing.assert_allclose(windows[40, 3], expected[75], atol=1e-4)
        assert not windows[74, -7:].any() and windows[74, -8].any()


def test_silence_is_finite(tmp_path):
    kind = open_kind("deepspeech", SpeechModels(write_deepspeech(tmp_path / "graph.pb"), device="cpu"))
    assert np.isfinite(kind(np.zeros(32000, np.int16))).all()


def test_the_published_sizes():
    with torch.device("meta"):
        network = DeepSpeech()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["dense1.weight"] == (2048, 494) and shapes["dense3.weight"] == (4096, 2048)
    assert shapes["ahead.weight_ih_l0"] == (8192, 4096) and shapes["back.weight_hh_l0"] == (8192, 2048)
    assert shapes["dense5.weight"] == (2048, 4096) and shapes["dense6.weight"] == (29, 2048)


@pytest.mark.parametrize(
    "name", ["lstm_fused_cell/kernel", "cudnn_lstm/rnn/multi_rnn_cell/cell_0/x", "previous_state_c"]
)
def test_later_versions_are_refused_by_name(tmp_path, name):
    path = tmp_path / "output_graph.pb"
    path.write_bytes(constants({name: np.zeros((4, 4)), "h1": np.zeros((494, 4))}))
    message = rf"output_graph\.pb: DeepSpeech 0\.2 or later: its graph has {name}, expected bidirectional_rnn/fw"
    with pytest.raises(UserError, match=message + r".*deepspeech-0\.1\.0-models\.tar\.gz"):
        load_deepspeech(path)


def test_other_networks_are_refused(tmp_path):
    path = tmp_path / "graph.pb"
    path.write_bytes(node("conv1", "Conv2D") + constants({"w": np.zeros(3)}))
    with pytest.raises(UserError, match=r"not DeepSpeech 0\.1\.0, or truncated: no constant h1, h2"):
        load_deepspeech(path)
    whole = deepspeech_constants()
    path.write_bytes(constants({name: array for name, array in whole.items() if name != "b6"}))
    with pytest.raises(UserError, match="no constant b6;"):
        load_deepspeech(path)
    path.write_bytes(constants({**whole, CELL.format("bw", "bias"): np.zeros(5)}))
    with pytest.raises(UserError, match=r"bw/basic_lstm_cell/bias is \(5,\), expected \(24,\)"):
        load_deepspeech(path)
    path.write_bytes(constants({**whole, "h1": np.zeros((26, 6))}))
    with pytest.raises(UserError, match=r"h1 is \(26, 6\), expected \(494, 6\)"):
        load_deepspeech(path)


def test_it_needs_its_file_and_says_where_it_is(tmp_path):
    with pytest.raises(UserError, match=r"deepspeech need --deepspeech FILE.*models/output_graph\.pb.*v0\.1\.0"):
        open_features("deepspeech", SpeechModels())
    with pytest.raises(UserError, match=r"no\.pb: no such file; .*v0\.1\.0"):
        open_features("deepspeech", SpeechModels(tmp_path / "no.pb"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_accelerator_gives_the_same(tmp_path):
    path = write_deepspeech(tmp_path / "graph.pb", hidden=64)
    sound = np.random.default_rng(3).integers(-9000, 9000, 48000).astype(np.int16)
    there, here = (open_kind("deepspeech", SpeechModels(path, device=device)) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there(sound), here(sound), atol=2e-3)
