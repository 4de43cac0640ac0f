"""animate on drawn faces that dlib finds, with untrained networks: lengths, surroundings, errors."""

import numpy as np
import pytest
import torch

from difftalk_pl.animate import animate
from difftalk_pl.data.synthetic import perform
from difftalk_pl.data.video import probe, read_audio, read_frames, write_video
from difftalk_pl.data.wav import write_wav
from difftalk_pl.errors import UserError
from difftalk_pl.metrics.opening import correlation, dark_opening, true_opening
from difftalk_pl.stages.generation import SamplerConfig
from tests.conftest import PROJECT
from tests.runner import Runner

SAMPLER = SamplerConfig(name="dpm++", steps=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, prepared, codec):
    small = Runner(tmp_path_factory.mktemp("animate"), prepared)
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": {"max_steps": 1, "limit_val_batches": 0}}
    small("fit", "diffusion", "talk", over)
    return small.checkpoint("talk")


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """2.4 s at 256 px, no sound."""
    path = tmp_path_factory.mktemp("person") / "person.mp4"
    write_video(path, perform(seed=0, number=900, seconds=2.4).frames(256), crf=12)
    return path


def speech(path, seconds, rate=22050):
    random = np.random.default_rng(0)
    write_wav(path, (random.standard_normal(round(seconds * rate)) * 3000).astype(np.int16), rate)
    return path


@pytest.mark.parametrize("seconds", [1.0, 5.13])
def test_the_result_is_as_long_as_the_sound_whether_the_video_is_longer_or_shorter(
    checkpoint, person, tmp_path, seconds
):
    out = tmp_path / "deep" / "out.mp4"
    animate(checkpoint, person, speech(tmp_path / "speech.wav", seconds), out, sampler=SAMPLER, workers=0, device="cpu")
    info = probe(out)
    assert (info.width, info.height) == (64, 64) and info.rate == pytest.approx(25)
    assert len(list(read_frames(out))) == round(seconds * 25)
    assert len(read_audio(out, 44100)) / 44100 == pytest.approx(seconds, abs=0.025)


def test_the_video_runs_back_and_forth_and_only_the_mouth_is_drawn(checkpoint, person, tmp_path):
    out = tmp_path / "out.mp4"
    animate(checkpoint, person, speech(tmp_path / "speech.wav", 4.0), out, sampler=SAMPLER, workers=0, device="cpu")
    frames = [frame.astype(float) for frame in read_frames(out)]
    top = [frame[:32] for frame in frames]
    assert np.abs(top[59 + 20] - top[59 - 20]).mean() < 3, "frame 79 of 60 is frame 39"
    assert np.abs(top[59 + 20] - top[0]).mean() > np.abs(top[59 + 20] - top[59 - 20]).mean()


def test_what_cannot_be_animated_is_said(checkpoint, codec, person, tmp_path):
    sound = speech(tmp_path / "speech.wav", 1.0)
    wall = tmp_path / "wall.mp4"
    write_video(wall, (np.full((128, 128, 3), 128, np.uint8) for _ in range(30)))
    for arguments, message in (
        ((checkpoint, wall, sound), r"no face"),
        ((checkpoint, person, person), r"person\.mp4.*no audio"),
        ((checkpoint, tmp_path / "no.mp4", sound), r"no\.mp4"),
        ((codec, person, sound), r"stage 1"),
    ):
        with pytest.raises(UserError, match=message):
            animate(*arguments, tmp_path / "out.mp4", sampler=SAMPLER, workers=0, device="cpu")
        assert not (tmp_path / "out.mp4").exists()


def test_the_mouth_follows_the_driving_sound_without_lag(tmp_path):
    """With the shipped weights, a drawn person says what another one said: the openings agree best at no shift."""
    voice, who = perform(seed=0, number=901, seconds=4), perform(seed=0, number=900, seconds=4)
    write_video(tmp_path / "person.mp4", who.frames(256), crf=12)
    write_wav(tmp_path / "voice.wav", voice.audio, 16000)
    weights, out = PROJECT / "experiments" / "demo" / "weights", tmp_path / "out.mp4"
    sampler = SamplerConfig(name="dpm++", steps=6)
    animate(weights, tmp_path / "person.mp4", tmp_path / "voice.wav", out, sampler=sampler, workers=0, device="cpu")
    frames = torch.from_numpy(np.stack(list(read_frames(out)))).movedim(-1, 1) / 127.5 - 1
    seen = dark_opening(frames, torch.from_numpy(who.landmarks()))
    said = true_opening(torch.from_numpy(voice.landmarks()))
    agreement = {lag: correlation(seen[5:-5], said.roll(lag)[5:-5]) for lag in range(-3, 4)}
    assert agreement[0] > 0.9 and max(agreement, key=lambda lag: agreement[lag]) == 0
