"""SyncNet as a judge: its files, and long clips in chunks against the network on every window by itself."""

import copy
import json

import numpy as np
import pytest
import torch

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.sync import crop_boxes, lip_frames, sync_mfcc
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.sync import SyncJudge, SyncStream
from difftalk_pl.files import file_hash
from difftalk_pl.models.syncnet import SyncNet
from difftalk_pl.training.pretrained import MissingWeights
from difftalk_pl.training.weights import export, read_weights
from tests.backbones import write_backbone
from tests.models.conftest import GOLDEN, Oracle

FRAMES = 12


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as the published one is: a pickled state dict of the old format, without counters of batches."""
    path = tmp_path_factory.mktemp("syncnet") / "other.model"
    torch.save(Oracle(GOLDEN / "syncnet.npz").state_dict(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def footage(prepared):
    """Frames, landmarks and sound of a drawn person."""
    clip = open_clips(prepared)[0]
    reader = clip.reader()
    frames = np.stack([reader[k] for k in range(FRAMES)])
    return frames, clip.landmarks[:FRAMES], clip.audio()[: FRAMES * 640]


def judged(judge, footage, chunk):
    frames, points, samples = footage
    stream = SyncStream(judge, points, frames.shape[1])
    for start in range(0, len(frames), chunk):
        stream.add(frames[start : start + chunk])
    return stream.finish(samples)


@torch.no_grad()
def test_chunks_of_any_size_give_what_every_window_gives(published, footage):
    frames, points, samples = footage
    judge = SyncJudge(published, "face_crop")
    net = SyncNet()
    net.load_state_dict(Oracle(GOLDEN / "syncnet.npz").state_dict())
    net.eval()
    pixels = torch.from_numpy(lip_frames(frames, crop_boxes(points, 64), 224)).float()
    count = FRAMES - 5
    expected = torch.cat([net.embed_frames(pixels[v : v + 5]) for v in range(count)])
    heard = net.embed_audio(torch.from_numpy(sync_mfcc(samples, count).copy())[:, None])
    for chunk in (FRAMES, 5):
        lips, speech = judged(judge, footage, chunk)
        assert lips.shape == speech.shape == (count, 1024) and lips.dtype == speech.dtype == torch.float32
        torch.testing.assert_close(lips, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
        torch.testing.assert_close(speech, heard, atol=1e-5 * float(heard.abs().max()), rtol=0)


def test_scores_do_not_depend_on_the_precision_around_them(published, footage):
    judge = SyncJudge(published, "whole_frame")
    short = tuple(part[:n] for part, n in zip(footage, (8, 8, 8 * 640)))
    expected = judged(judge, short, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(judged(judge, short, 8), expected))
    assert copy.deepcopy(judge) is judge and not judge.network.training
    assert not any(parameter.requires_grad for parameter in judge.network.parameters())


def test_what_cannot_be_measured_is_told_in_one_line(published, footage):
    frames, points, samples = footage
    judge = SyncJudge(published, "face_crop")
    for short in ((frames[:5], points[:5], samples), (frames[:9], points[:9], samples[:3000])):
        with pytest.raises(UserError, match="too short for lip-sync scores"):
            judged(judge, short, 4)
    with pytest.raises(UserError, match="no sound"):
        judged(judge, (frames[:6], points[:6], None), 6)
    with pytest.raises(UserError, match="no landmarks, and face_crop"):
        SyncStream(judge, None, 64)


def test_only_the_published_file_is_called_so(published, monkeypatch):
    about = SyncJudge(published, "face_crop").describe()
    assert about["network"] == "SyncNet of published size, another file"
    assert about["sha256"] == file_hash(published) and len(about["weights"]) == 12
    assert about["crop"].startswith("face_crop: ") and about["largest_shift"] == 15
    monkeypatch.setattr("difftalk_pl.evaluation.sync.SYNCNET_SHA256", file_hash(published))
    about = SyncJudge(published, "whole_frame").describe()
    assert about["network"] == "published syncnet_v2" and json.dumps(about)


def test_one_that_was_trained_here_measures_and_names_its_people(fitted_syncnet, footage, tmp_path):
    checkpoint = fitted_syncnet / "checkpoints" / "last.ckpt"
    export(checkpoint, tmp_path / "model")
    lips, speech = judged(SyncJudge(checkpoint, "whole_frame"), footage, 9)
    assert lips.shape == (FRAMES - 5, 16)
    again = judged(SyncJudge(tmp_path / "model", "whole_frame"), footage, 9)
    assert torch.equal(again[0], lips) and torch.equal(again[1], speech)
    about = SyncJudge(tmp_path / "model", "whole_frame").describe()
    assert about["network"] == "trained here on 2 people: synthetic_000, synthetic_001 (drawn faces)"
    assert about["weights"] == read_weights(checkpoint).hash and about["side"] == 64
    with pytest.raises(UserError, match=r"last\.ckpt: trained on whole_frame, not face_crop"):
        SyncJudge(checkpoint, "face_crop")


def test_files_of_something_else_are_refused_in_one_line(published, codec, tmp_path):
    (tmp_path / "page.model").write_text("<html>not found</html>")
    (tmp_path / "cut.model").write_bytes(published.read_bytes()[:100_000])
    state = Oracle(GOLDEN / "syncnet.npz").state_dict()
    torch.save({**state, "netfcaud.0.bias": torch.full((512,), torch.nan)}, tmp_path / "broken.model")
    write_backbone(tmp_path / "backbone.model")
    for name in ("page", "cut", "broken", "backbone"):
        with pytest.raises(UserError, match=rf"{name}\.model: ") as refused:
            SyncJudge(tmp_path / f"{name}.model", "face_crop")
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="autoencoder"):
        SyncJudge(codec, "face_crop")
    with pytest.raises(MissingWeights, match=r"none\.model: no weights of SyncNet\. .*fetch-weights syncnet"):
        SyncJudge(tmp_path / "none.model", "face_crop")
