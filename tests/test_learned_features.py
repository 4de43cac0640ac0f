"""A model that is trained with features of a network asks for that network when it is used."""

import json
import shutil

import numpy as np
import pytest

from difftalk_pl.animate import pipeline as module
from difftalk_pl.animate.command import animate
from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.features.kinds import SpeechModels, check_models, open_features
from difftalk_pl.data.features.stored import add_missing, record_models
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import read_audio, write_wav
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video
from difftalk_pl.training.contract import DataContract
from difftalk_pl.training.weights import export, read_weights
from tests.frozen import write_deepspeech
from tests.runner import Runner

HIDDEN, CLASSES = 5, 7
QUICK = {"sampler": "dpm++", "steps": 2, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared, codec):
    """A run of one step on drawn people with features of graph.pb, and the graph."""
    folder = tmp_path_factory.mktemp("trained")
    graph = write_deepspeech(folder / "graph.pb", HIDDEN, CLASSES)
    root = folder / "data"
    shutil.copytree(prepared, root)
    models = SpeechModels(graph, device="cpu")
    record_models(root, check_models(["deepspeech"], models))
    for clip in open_clips(root):
        add_missing([clip], ["deepspeech"], models)
    runner = Runner(folder, root)
    runner("fit", "diffusion", "talk", over(codec))
    return runner, graph


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    path = tmp_path_factory.mktemp("person") / "person.mp4"
    write_video(path, perform(seed=0, number=900, seconds=2.4).frames(256), crf=12)
    return path


@pytest.fixture
def speech(tmp_path):
    sound = (np.random.default_rng(0).standard_normal(16000) * 3000).astype(np.int16)
    return write_wav(tmp_path / "speech.wav", sound, 16000) or tmp_path / "speech.wav"


def over(codec, channels=CLASSES, **trainer):
    model = {"autoencoder": str(codec), "difftalk": {"conditioning": {"audio_channels": channels}}}
    settings = {"max_steps": 1, "limit_val_batches": 0, **trainer}
    return {"model": {"init_args": model}, "data": {"features": "deepspeech"}, "trainer": settings}


def test_channels_are_taken_from_the_data(trained, codec):
    runner, _ = trained
    with pytest.raises(
        UserError, match=r"data\.features deepspeech has 7 channels, .*audio_channels is 29: set it to 7"
    ):
        runner("fit", "diffusion", "channels", over(codec, channels=29))


def test_a_checkpoint_and_its_folder_name_what_made_the_features(trained, tmp_path):
    runner, graph = trained
    record = json.loads((runner.data / "features.json").read_text())["deepspeech"]
    export(runner.checkpoint("talk"), tmp_path / "folder")
    for path in (runner.checkpoint("talk"), tmp_path / "folder"):
        contract = read_weights(path).data
        assert (contract.features, contract.features_model) == ("deepspeech", graph.name)
        assert contract.features_sha256 == record["sha256"]


def test_a_run_does_not_go_on_with_features_of_another_model(trained, codec):
    runner, _ = trained
    path = runner.data / "features.json"
    record = path.read_text()
    try:
        path.write_text(record.replace(json.loads(record)["deepspeech"]["sha256"], "0" * 64))
        with pytest.raises(UserError, match=r"the checkpoint was trained on .*graph\.pb.* the data are .*0000"):
            runner("fit", "diffusion", "talk", over(codec, max_steps=2))
        path.unlink()  # nobody knows any more: taken on trust
        assert runner("fit", "diffusion", "talk", over(codec, max_steps=2)).trainer.global_step == 2
        assert read_weights(runner.checkpoint("talk")).data.features_model == "graph.pb"
    finally:
        path.write_text(record)


def test_animate_asks_for_the_network_of_the_training(trained, person, speech, tmp_path):
    runner, _ = trained
    out, checkpoint = tmp_path / "out.mp4", runner.checkpoint("talk")
    export(checkpoint, tmp_path / "folder")
    other = write_deepspeech(tmp_path / "other.pb", HIDDEN, CLASSES, seed=1)
    trained_with = r"last\.ckpt: was trained with deepspeech features of graph\.pb"
    for given, message in (
        ({}, trained_with + "; .*--deepspeech"),
        ({"speech_model": "x"}, "--deepspeech"),
        (
            {"deepspeech": other},
            trained_with + r" in 7 channels, not with other\.pb .*give the network of the training",
        ),
        ({"deepspeech": tmp_path / "no.pb"}, r"no\.pb: "),
    ):
        with pytest.raises(UserError, match=message):
            animate(checkpoint, person, speech, out, **QUICK, **given)
        assert not out.exists()


def test_animate_hears_with_the_network_that_is_given(trained, person, speech, tmp_path, monkeypatch):
    runner, graph = trained
    out, heard = tmp_path / "out.mp4", []
    real = module.DrivenClip.drive
    hear = lambda clip, steps, *rest: heard.append(steps) or real(clip, steps, *rest)  # noqa: E731
    monkeypatch.setattr(module.DrivenClip, "drive", hear)
    checkpoint = runner.checkpoint("talk")
    animate(checkpoint, person, speech, out, **QUICK, deepspeech=graph)
    assert len(list(read_frames(out))) == 25
    kind = open_features("deepspeech", SpeechModels(graph, device="cpu"))
    np.testing.assert_array_equal(heard[0], kind(read_audio(speech, 16000)))


def test_a_model_that_does_not_say_what_it_heard_takes_any_network_with_its_channels(trained, person, speech, tmp_path):
    runner, graph = trained
    folder = tmp_path / "folder"
    export(runner.checkpoint("talk"), folder)
    content = json.loads((folder / "config.json").read_text())
    for key in ("features_model", "features_sha256"):
        del content["config"]["data"][key]
    (folder / "config.json").write_text(json.dumps(content))
    wide = write_deepspeech(tmp_path / "wide.pb", HIDDEN, classes=29)
    with pytest.raises(UserError, match=r"of unknown origin in 7 channels, not with wide\.pb .* in 29"):
        animate(folder, person, speech, tmp_path / "o.mp4", **QUICK, deepspeech=wide)
    animate(folder, person, speech, tmp_path / "o.mp4", **QUICK, deepspeech=graph)
    assert (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize(
    "there, agree",
    [
        (DataContract("deepspeech", "below_nose", 256, "b.pb", "11"), True),
        (DataContract("deepspeech", "below_nose", 256, "a.pb", "22"), False),
        (DataContract("deepspeech", "below_nose", 256), True),
        (DataContract("mfcc", "below_nose", 256), False),
        (DataContract("deepspeech", "mouth_safe", 256, "a.pb", "11"), False),
        (DataContract("deepspeech", "below_nose", 64, "a.pb", "11"), False),
    ],
)
def test_data_agree_by_kind_mask_size_and_hash_where_both_are_known(there, agree):
    assert DataContract("deepspeech", "below_nose", 256, "a.pb", "11").agrees_with(there) == agree
