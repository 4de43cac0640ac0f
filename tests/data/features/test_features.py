"""Learned kinds in a dataset: made in workers, recorded with their model, never mixed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from difftalk_pl.__main__ import main
from difftalk_pl.data.add_features import Job, add_features, groups, run_job
from difftalk_pl.data.audio import MFCC
from difftalk_pl.data.clips import Clip, open_clips, write_json
from difftalk_pl.data.datamodule import HDTFDataModule
from difftalk_pl.data.features import kinds as module
from difftalk_pl.data.features.deepspeech import DeepSpeechFeatures, deepspeech_input
from difftalk_pl.data.features.kinds import (
    FeatureModel,
    SpeechModels,
    add_missing,
    check_models,
    open_features,
    read_record,
    record_models,
)
from difftalk_pl.data.files.claims import TakenOverError
from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.synthetic.dataset import perform, synthesize
from difftalk_pl.errors import UserError
from difftalk_pl.media.video import write_video
from tests.frozen import deepspeech, deepspeech_constants, write_deepspeech

HIDDEN, CLASSES, OTHER = 5, 7, 1  # CLASSES: another number than any other kind has channels


@pytest.fixture
def graph(tmp_path):
    return write_deepspeech(tmp_path / "graph.pb", HIDDEN, CLASSES)


@pytest.fixture
def other_graph(tmp_path):
    return write_deepspeech(tmp_path / "other.pb", HIDDEN, CLASSES, seed=OTHER)


@pytest.fixture
def drawn(tmp_path):
    """Two drawn people with MFCC."""
    synthesize(tmp_path / "drawn", clips=2, seconds=3.2, workers=1)
    return tmp_path / "drawn"


def check_clip(clip, seed=0):
    """The features beside the network written out in numpy."""
    expected = deepspeech(deepspeech_constants(HIDDEN, CLASSES, seed), deepspeech_input(clip.audio()))
    assert clip.features("deepspeech").shape == (2 * clip.frames, CLASSES)
    np.testing.assert_allclose(clip.features("deepspeech"), expected, atol=1e-4)


def add(root, graph):
    """What the command does, without its workers."""
    models = SpeechModels(graph, device="cpu")
    record_models(root, check_models(["deepspeech"], models))
    add_missing(open_clips(root), ["deepspeech"], models)


@pytest.mark.slow
def test_prepare_makes_several_kinds_and_adds_kinds_to_what_is_there(tmp_path, graph, other_graph):
    voice = perform(seed=0, number=3, seconds=3.2)
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", voice.frames(256), audio=voice.audio)
    root = tmp_path / "out"
    prepare([tmp_path / "videos"], root, size=64)
    (clip,) = open_clips(root)
    video = (clip.folder / "video.mp4").stat().st_mtime_ns
    assert not (root / "features.json").exists()
    prepare([tmp_path / "videos"], root, size=64, features=["mfcc", "deepspeech"], deepspeech=graph)
    assert (clip.folder / "video.mp4").stat().st_mtime_ns == video
    check_clip(clip)
    record = json.loads((root / "features.json").read_text())
    sha256 = hashlib.sha256(graph.read_bytes()).hexdigest()
    assert record == {"deepspeech": {"name": "graph.pb", "sha256": sha256, "channels": CLASSES}}
    before = np.array(clip.features("deepspeech"))
    with pytest.raises(UserError, match=r"deepspeech features made with graph\.pb .*must not be mixed .*other\.pb"):
        prepare([tmp_path / "videos"], root, size=64, features="deepspeech", deepspeech=other_graph)
    np.testing.assert_array_equal(before, clip.features("deepspeech"))
    fresh = tmp_path / "fresh"
    prepare([tmp_path / "videos"], fresh, size=64, features=["mfcc", "deepspeech"], deepspeech=graph)
    for kind in ("mfcc", "deepspeech"):
        np.testing.assert_array_equal(open_clips(fresh)[0].features(kind), clip.features(kind))


def test_add_features_goes_on_where_it_was(drawn, graph, capfd):
    arguments = ["add-features", "--data", str(drawn), "--features", "[mfcc,deepspeech]", "--deepspeech", str(graph)]
    assert main(arguments) == 0
    for clip in open_clips(drawn):
        check_clip(clip)
        np.testing.assert_array_equal(clip.features("mfcc"), MFCC()(clip.audio()))
    paths = [clip.folder / "features" / "deepspeech.npy" for clip in open_clips(drawn)]
    stamps = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    assert main(arguments) == 0
    assert paths[0].stat().st_mtime_ns == stamps[0]
    check_clip(open_clips(drawn)[1])
    assert not list(drawn.rglob(".*.tmp"))


def test_one_clip_that_cannot_does_not_end_the_others(drawn, graph, capfd):
    mute, whole = open_clips(drawn)
    write_json(mute.folder / "clip.json", {**mute.info(), "audio": "none in the legacy layout"})
    with pytest.raises(UserError, match=rf"1 of 2 clips failed \({mute.name}\)"):
        add_features(drawn, "deepspeech", graph)
    assert not (mute.folder / "features" / "deepspeech.npy").exists()
    check_clip(whole)


@pytest.mark.parametrize("what", ["frames", "claim"])
def test_a_clip_that_is_made_anew_meanwhile_gets_nothing(what, drawn, graph, monkeypatch):
    clip = open_clips(drawn)[0]
    if what == "frames":
        info = clip.info()
        write_json(clip.folder / "clip.json", {**info, "frames": info["frames"] + 1})
        reason = "prepared anew meanwhile"
    else:
        monkeypatch.setattr("difftalk_pl.data.files.claims.Claim.confirm", taken_over)
        reason = "another process took over"
    failures = run_job(Job((clip,), ("deepspeech",), SpeechModels(graph)), lambda *_: None)
    assert list(failures) == [clip.name] and reason in failures[clip.name]
    assert sorted(path.name for path in (clip.folder / "features").iterdir()) == ["mfcc.npy"]


def taken_over(claim) -> None:
    raise TakenOverError


def test_a_spoilt_sound_does_not_end_those_beside_it(drawn, graph, capfd):
    """Both clips are heard in one pass."""
    spoilt, whole = open_clips(drawn)
    (spoilt.folder / "audio.wav").write_bytes(b"RIFF????")
    assert groups([spoilt, whole], ["deepspeech"], workers=1) == [(spoilt, whole)]
    failures = run_job(
        Job((spoilt, whole), ("deepspeech",), SpeechModels(graph, device="cpu")), lambda done, total: None
    )
    assert list(failures) == [spoilt.name] and "audio.wav: no readable WAV file" in failures[spoilt.name]
    check_clip(whole)


def test_clips_of_like_lengths_are_heard_together_within_bounds():
    clips = [Clip(Path("root"), f"c{number:02d}", 100 + number % 7) for number in range(40)]
    together = groups(clips, ["mfcc", "deepspeech"], workers=1)
    assert [len(group) for group in together] == [16, 16, 8]
    lengths = [clip.frames for group in together for clip in group]
    assert lengths == sorted(lengths, reverse=True) and len({clip for group in together for clip in group}) == 40
    assert [len(group) for group in groups(clips, ["deepspeech"], workers=8)] == [5] * 8
    assert [len(group) for group in groups(clips, ["mfcc", "hubert"], workers=1)] == [1] * 40
    long = [Clip(Path("root"), f"l{number}", frames) for number, frames in enumerate((40000, 7500, 7500, 7500, 10))]
    assert [[clip.frames for clip in group] for group in groups(long, ["deepspeech"], 1)] == [
        [40000],
        [7500, 7500],
        [7500, 10],
    ]


def test_several_clips_pass_at_once_and_those_that_have_the_kind_are_left(drawn, graph, monkeypatch):
    heard = []
    real = DeepSpeechFeatures.batch
    monkeypatch.setattr(DeepSpeechFeatures, "batch", lambda self, s: heard.append(len(s)) or real(self, s))
    models = SpeechModels(graph, device="cpu")
    assert add_missing(open_clips(drawn), ["deepspeech"], models) == 2
    open_clips(drawn)[1].features_file("deepspeech").unlink()
    assert add_missing(open_clips(drawn), ["deepspeech"], models) == 1
    assert add_missing(open_clips(drawn), ["deepspeech"], models) == 0
    assert heard == [2, 1]
    for clip in open_clips(drawn):
        check_clip(clip)


def test_a_model_may_change_once_its_files_are_gone(drawn, graph, other_graph):
    add(drawn, graph)
    with pytest.raises(UserError, match=r"remove clips/\*/features/deepspeech\.npy to make them anew"):
        add(drawn, other_graph)
    for clip in open_clips(drawn):
        (clip.folder / "features" / "deepspeech.npy").unlink()
    add(drawn, other_graph)
    check_clip(open_clips(drawn)[0], seed=OTHER)
    assert read_record(drawn)["deepspeech"].name == "other.pb"


def test_the_same_file_under_another_name_is_the_same_model(drawn, graph, tmp_path):
    add(drawn, graph)
    renamed = tmp_path / "output_graph.pb"
    renamed.write_bytes(graph.read_bytes())
    add(drawn, renamed)
    assert read_record(drawn)["deepspeech"].name == "graph.pb"


def test_features_that_nobody_recorded_are_not_added_to(drawn):
    path = open_clips(drawn)[0].folder / "features" / "deepspeech.npy"
    np.save(path, np.zeros((160, 29), np.float32))
    with pytest.raises(UserError, match="deepspeech features of unknown origin"):
        record_models(drawn, {"deepspeech": FeatureModel("a.pb", "00", 29)})
    record_models(drawn, {"hubert": FeatureModel("b", "11", 24)})
    assert set(read_record(drawn)) == {"hubert"}


def test_a_network_is_loaded_once_for_all_clips(drawn, graph, monkeypatch):
    loaded = []
    real = module.import_module
    monkeypatch.setattr(module, "import_module", lambda name: loaded.append(name) or real(name))
    models = SpeechModels(graph, device="cpu")
    for clip in open_clips(drawn):
        assert add_missing([clip], ("mfcc", "deepspeech"), models) == 1
    assert loaded == ["difftalk_pl.data.features.deepspeech"]
    assert open_features("deepspeech", models) is open_features("deepspeech", models)


def test_the_datamodule_takes_channels_and_origin_from_the_dataset(drawn, graph):
    add(drawn, graph)
    data = HDTFDataModule(drawn, features="deepspeech")
    assert data.audio_channels == CLASSES and data.feature_model == read_record(drawn)["deepspeech"]
    mfcc = HDTFDataModule(drawn)
    assert mfcc.audio_channels == 26 and mfcc.feature_model is None
    with pytest.raises(UserError, match=r"hubert\.npy: no such features; run prepare with --features hubert"):
        _ = HDTFDataModule(drawn, features="hubert").audio_channels


@pytest.mark.parametrize("command", [["prepare", "x.mp4", "--out"], ["add-features", "--data"]])
def test_what_is_missing_is_one_line_and_nothing_is_made(command, drawn, capfd, tmp_path):
    folder = tmp_path / "new" if command[0] == "prepare" else drawn
    (tmp_path / "x.mp4").write_bytes(b"")
    arguments = [str(tmp_path / "x.mp4") if argument == "x.mp4" else argument for argument in command]
    for features, reason in (
        ("deepspeech", "need --deepspeech FILE; DeepSpeech 0.1.0 is models/output_graph.pb"),
        ("wav2vec2", "need --speech-model"),
        ("whisper", "no such kind; there are mfcc, deepspeech, wav2vec2, hubert"),
    ):
        assert main([*arguments, str(folder), "--features", features]) == 1
        error = capfd.readouterr().err.strip()
        assert reason in error and "Traceback" not in error and len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists() and not (drawn / "features.json").exists()


def test_a_spoilt_record_is_named(drawn):
    (drawn / "features.json").write_text('{"deepspeech": {"path": "x"}}')
    with pytest.raises(UserError, match=r"features\.json: not readable"):
        read_record(drawn)
