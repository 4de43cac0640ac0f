"""Features in a dataset: added to prepared clips, recorded with their network, never mixed."""

import hashlib
import json

import numpy as np
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.clips import open_clips, verify
from difftalk_pl.data.features.deepspeech import deepspeech_input
from difftalk_pl.data.features.kinds import MFCC, SpeechModels, open_features
from difftalk_pl.data.features.stored import add_missing, check_features, read_record, record_models
from difftalk_pl.data.synthetic.dataset import synthesize
from difftalk_pl.errors import UserError
from tests.frozen import deepspeech, deepspeech_constants, write_deepspeech

HIDDEN, CLASSES = 5, 7  # CLASSES: another number than any other kind has channels


@pytest.fixture
def graph(tmp_path):
    return write_deepspeech(tmp_path / "graph.pb", HIDDEN, CLASSES)


@pytest.fixture
def drawn(tmp_path):
    """Two drawn people with MFCC."""
    synthesize(tmp_path / "drawn", clips=2, seconds=1.2, workers=1)
    return tmp_path / "drawn"


def add(root, graph, *kinds):
    return main(["add-features", "--data", str(root), "--features", *kinds, "--deepspeech", str(graph)])


def test_features_are_added_recorded_and_not_computed_again(drawn, graph):
    assert add(drawn, graph, "mfcc", "deepspeech") == 0
    record = {"name": "graph.pb", "sha256": hashlib.sha256(graph.read_bytes()).hexdigest()}
    assert json.loads((drawn / "features.json").read_text()) == {"deepspeech": record}
    for clip in open_clips(drawn):
        expected = deepspeech(deepspeech_constants(HIDDEN, CLASSES), deepspeech_input(clip.audio()))
        np.testing.assert_allclose(clip.features("deepspeech"), expected[: 2 * clip.frames], rtol=1e-4, atol=2e-4)
        np.testing.assert_array_equal(clip.features("mfcc"), MFCC(clip.audio()))
        verify(clip)
    first, second = (clip.features_file("deepspeech") for clip in open_clips(drawn))
    stamp = first.stat().st_mtime_ns
    second.unlink()
    assert add(drawn, graph, "deepspeech") == 0 and second.exists()
    assert first.stat().st_mtime_ns == stamp and not list(drawn.rglob("*.tmp"))


def test_one_damaged_clip_does_not_end_the_others(drawn, graph, capsys):
    bad, good = open_clips(drawn)
    (bad.folder / "audio.wav").write_bytes(b"RIFF")
    assert add(drawn, graph, "deepspeech") == 1
    assert "1 of 2 clips failed" in capsys.readouterr().err
    assert not bad.features_file("deepspeech").exists() and good.features_file("deepspeech").exists()


def test_features_of_two_networks_are_never_mixed(drawn, graph, tmp_path):
    mine = SpeechModels(graph, device="cpu")
    other = SpeechModels(write_deepspeech(tmp_path / "other.pb", HIDDEN, CLASSES, seed=1), device="cpu")
    record_models(drawn, ["mfcc", "deepspeech"], other)
    assert read_record(drawn) == {"deepspeech": open_features("deepspeech", other).model}
    record_models(drawn, ["deepspeech"], mine)  # nothing has been computed yet
    add_missing(open_clips(drawn)[0], ["deepspeech"], mine)
    with pytest.raises(UserError, match=r"deepspeech features of graph\.pb .*must not be mixed .*other\.pb"):
        record_models(drawn, ["deepspeech"], other)
    (drawn / "features.json").unlink()
    with pytest.raises(UserError, match="features of unknown origin"):
        record_models(drawn, ["deepspeech"], mine)


def test_missing_features_are_named_with_the_command_that_adds_them(drawn):
    check_features(drawn, open_clips(drawn), "mfcc")
    remedy = rf"run add-features --data {drawn} --features deepspeech"
    with pytest.raises(UserError, match=rf"2 of 2 clips have no deepspeech features \(synthetic_000, .*{remedy}"):
        check_features(drawn, open_clips(drawn), "deepspeech")
