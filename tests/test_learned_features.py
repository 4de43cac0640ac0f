"""A model that is trained with features of a network asks for that network when it is used."""

import json
import shutil

import numpy as np
import pytest

from difftalk_pl.animate.command import animate
from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.features.kinds import SpeechModels
from difftalk_pl.data.features.stored import add_missing, record_models
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import write_wav
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video
from difftalk_pl.training.weights import export, read_weights
from tests.frozen import write_deepspeech
from tests.runner import Runner

HIDDEN, CLASSES = 5, 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared, codec):
    """A run of one step on drawn people with features of graph.pb, and the graph."""
    folder = tmp_path_factory.mktemp("trained")
    graph = write_deepspeech(folder / "graph.pb", HIDDEN, CLASSES)
    root, models = shutil.copytree(prepared, folder / "data"), SpeechModels(graph, device="cpu")
    record_models(root, ["deepspeech"], models)
    for clip in open_clips(root):
        add_missing(clip, ["deepspeech"], models)
    runner = Runner(folder, root)
    runner("fit", "diffusion", "talk", settings(codec))
    return runner, graph


def settings(codec, channels=CLASSES, **trainer):
    model = {"autoencoder": str(codec), "difftalk": {"conditioning": {"audio_channels": channels}}}
    trainer = {"max_steps": 1, "limit_val_batches": 0, **trainer}
    return {"model": {"init_args": model}, "data": {"features": "deepspeech"}, "trainer": trainer}


def test_a_checkpoint_and_its_folder_name_the_network_of_the_features(trained, tmp_path):
    runner, graph = trained
    record = json.loads((runner.data / "features.json").read_text())["deepspeech"]
    export(runner.checkpoint("talk"), tmp_path / "folder")
    for path in (runner.checkpoint("talk"), tmp_path / "folder"):
        data = read_weights(path).data
        assert (data.features, data.features_model) == ("deepspeech", graph.name)
        assert data.features_sha256 == record["sha256"]


def test_a_run_is_not_continued_with_features_of_another_network(trained, codec):
    runner, _ = trained
    path = runner.data / "features.json"
    record = path.read_text()
    try:
        path.write_text(record.replace(json.loads(record)["deepspeech"]["sha256"], "0" * 64))
        with pytest.raises(UserError, match=r"the checkpoint was trained on"):
            runner("fit", "diffusion", "talk", settings(codec, max_steps=2))
    finally:
        path.write_text(record)


def test_animate_takes_the_network_of_the_training_and_no_other(trained, tmp_path):
    runner, graph = trained
    person, speech, out = (tmp_path / name for name in ("person.mp4", "speech.wav", "out.mp4"))
    write_video(person, perform(seed=0, number=900, seconds=2.4).frames(256), crf=12)
    write_wav(speech, (np.random.default_rng(0).standard_normal(16000) * 3000).astype(np.int16), 16000)
    other = write_deepspeech(tmp_path / "other.pb", HIDDEN, CLASSES, seed=1)
    for given, message in (
        ({}, r"was trained with deepspeech features of graph\.pb; .*--deepspeech"),
        ({"deepspeech": other}, r"graph\.pb in 7 channels, not with other\.pb"),
        ({"deepspeech": graph}, None),
    ):
        options = {"sampler": "dpm++", "steps": 2, "workers": 0, "device": "cpu", **given}
        if message is None:
            animate(runner.checkpoint("talk"), person, speech, out, **options)
            assert len(list(read_frames(out))) == 25
        else:
            with pytest.raises(UserError, match=message):
                animate(runner.checkpoint("talk"), person, speech, out, **options)
            assert not out.exists()
