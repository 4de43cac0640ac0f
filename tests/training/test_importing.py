"""The command import-checkpoint, on small checkpoints that have the published names."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from difftalk_pl.__main__ import main
from difftalk_pl.data.synthetic.dataset import perform
from difftalk_pl.errors import UserError
from difftalk_pl.media.audio import write_wav
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.codec import LatentCodec
from difftalk_pl.training.contract import DataContract
from difftalk_pl.training.importing import open_weights
from difftalk_pl.training.weights import read_weights
from tests.models.conftest import GOLDEN, Oracle
from tests.published import (
    DENOISER,
    FIRST_STAGE,
    SMALL_HEADS,
    FirstStage,
    averages,
    first_stage,
    refused,
    run,
    save,
    schedule_buffers,
    stage_two,
)

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A stage 2 checkpoint of the released code with all that goes with it, optimizer and callbacks included."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    callbacks = {ModelCheckpoint: {"best_model_path": "a.ckpt"}}
    optimizer = [{"state": {0: {"exp_avg": torch.zeros(3)}}}]
    path = tmp_path_factory.mktemp("released") / "epoch=3.ckpt"
    return save(stage_two(), path, callbacks=callbacks, optimizer_states=optimizer)


@pytest.fixture
def said(caplog, monkeypatch):
    """What the command logs, as one text."""
    monkeypatch.setattr(logging.getLogger("difftalk_pl"), "propagate", True)
    caplog.set_level(logging.INFO, "difftalk_pl")
    monkeypatch.setattr("difftalk_pl.logs.log_to_terminal", lambda: None)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


VQ_F8 = {"widths": (32, 64, 64, 128), "latent": 4, "attention_levels": (3,)}


@pytest.mark.parametrize("sizes", [{}, {"mid_attention": False}, VQ_F8], ids=["vq-f4", "vq-f4-noattn", "vq-f8"])
@torch.no_grad()
def test_a_first_stage_becomes_a_folder(tmp_path, said, sizes):
    state = first_stage(**sizes)
    training = {
        "loss.discriminator.main.0.weight": torch.ones(4),
        "loss.perceptual_loss.lin0.model.1.weight": torch.ones(4),
    }
    file = save(state | training, tmp_path / "model.ckpt", optimizer_states=[{"lr": 1.0}])
    assert run(file, "--out", tmp_path / "vq", "--expect", "autoencoder") == 0
    codec, reference = LatentCodec.load(tmp_path / "vq"), FirstStage(state)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    z = codec.encode(image)
    torch.testing.assert_close(z, reference.encode(image), atol=TOLERANCE, rtol=0)
    codebook = state["quantize.embedding.weight"]
    cells = z.movedim(1, -1)
    nearest = codebook[(cells[..., None, :] - codebook).square().sum(-1).argmin(-1)].movedim(-1, 1)
    torch.testing.assert_close(codec.decode(z), reference.decode(nearest).clamp(-1, 1), atol=TOLERANCE, rtol=0)
    assert "epoch 3, global step 77" in said() and "left out: 2 tensors for training only, of loss" in said()
    card = (tmp_path / "vq" / "README.md").read_text()
    assert codec.hash in card and "model.ckpt, a published first stage, epoch 3" in card
    assert (
        f"{sum(value.numel() for value in state.values()):,}" in card
        and f"{sum(map(torch.numel, state.values())):,}" in said()
    )


def test_a_first_stage_with_averages_gives_them_unless_told_otherwise(tmp_path):
    state = first_stage()
    file = save(state | averages(state, module=""), tmp_path / "model.ckpt")
    assert run(file, "--out", tmp_path / "average") == 0
    assert run(file, "--out", tmp_path / "last", "--raw") == 0
    average, last = (read_weights(tmp_path / name).state for name in ("average", "last"))
    assert all(torch.equal(average[name], 0.5 * last[name]) for name in last)


@pytest.mark.oracle
@torch.no_grad()
def test_a_released_checkpoint_computes_the_published_numbers(tmp_path, released, record_difference):
    assert run(released, "--out", tmp_path / "talk", "--raw", *SMALL_HEADS) == 0
    weights = read_weights(tmp_path / "talk")
    network = weights.difftalk()
    unet, nets, vq = (Oracle(GOLDEN / f"{name}.npz") for name in ("unet_width32", "condition_nets", "vq_width32"))
    noise = network(unet["z"][:, :3], unet["t"], Condition(unet["context"], unet["z"][:, 3:]))
    record_difference("imported stage 2, denoiser", (noise - unet["out"]).abs().max(), TOLERANCE)
    audio = network.conditioning.encode_audio(nets["audio"])
    record_difference("imported stage 2, speech", (audio - nets["audio_smoothed"]).abs().max(), TOLERANCE)
    landmarks = network.conditioning.encode_landmarks(nets["landmarks"] / 256)
    worst = ((landmarks - nets["landmark_code"]).abs() / (1 + nets["landmark_code"].abs())).max()
    record_difference("imported stage 2, landmarks (relative)", worst, TOLERANCE)
    z = LatentCodec(weights.codec).encode(vq["x"])
    record_difference("imported stage 2, first stage", (z - vq["z"]).abs().max(), TOLERANCE)


def test_a_released_checkpoint_brings_what_it_needs(tmp_path, released, said):
    assert run(released, "--out", tmp_path / "talk", *SMALL_HEADS, "--expect", "diffusion") == 0
    weights = read_weights(tmp_path / "talk")
    assert weights.data == DataContract(features="deepspeech", mask="below_nose", size=256)
    assert weights.schedule == NoiseSchedule()
    difftalk = weights.config["difftalk"]
    assert difftalk["conditioning"]["landmark_scale"] == 256 and difftalk["conditioning"]["context"] == "single"
    assert difftalk["denoiser"]["heads"] == [2, 4, 6, 8]
    for line in ("123 updates", "1000 steps, scaled_linear, 0.0015 to 0.0195, of the file", "heads (2, 4, 6, 8)"):
        assert line in said()
    counted = sum(value.numel() for name, value in stage_two().items() if name.startswith(DENOISER))
    assert f"denoiser {counted:,} parameters" in said()


def test_the_average_covers_the_denoiser_and_nothing_else(tmp_path, released):
    assert run(released, "--out", tmp_path / "average", *SMALL_HEADS) == 0
    assert run(released, "--out", tmp_path / "last", *SMALL_HEADS, "--raw") == 0
    average, last = (read_weights(tmp_path / name) for name in ("average", "last"))
    for name, value in last.state.items():
        assert torch.equal(average.state[name], 0.5 * value if name.startswith("denoiser.") else value)
    assert average.codec.hash == last.codec.hash and average.hash != last.hash


def test_another_schedule_of_the_file_is_taken_over(tmp_path, released):
    file = save(stage_two() | schedule_buffers(200, 0.001, 0.02), tmp_path / "model.ckpt")
    assert run(file, "--out", tmp_path / "talk", *SMALL_HEADS) == 0
    assert read_weights(tmp_path / "talk").schedule == NoiseSchedule(200, 0.001, 0.02)


def test_a_file_without_first_stage_takes_one_by_name(tmp_path, capsys):
    state = {name: value for name, value in stage_two().items() if not name.startswith(FIRST_STAGE)}
    file = save(state, tmp_path / "model.ckpt")
    assert "holds no first stage: give one by --autoencoder" in refused(capsys, file, "--out", tmp_path / "talk")
    first = save(first_stage(), tmp_path / "first.ckpt")
    assert run(file, "--out", tmp_path / "talk", *SMALL_HEADS, "--autoencoder", first) == 0
    assert read_weights(tmp_path / "talk").codec.hash == open_weights(first).hash


def test_published_names_in_safetensors_and_half_precision_are_read(tmp_path):
    state = {name: value.half() for name, value in first_stage().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert run(tmp_path / "model.safetensors", "--out", tmp_path / "vq") == 0
    read = read_weights(tmp_path / "vq").state["vq.encoder.conv_in.weight"]
    assert torch.equal(read, state["encoder.conv_in.weight"].float())


def test_the_other_stage_is_named(tmp_path, capsys, released):
    first = save(first_stage(), tmp_path / "first.ckpt")
    line = refused(capsys, first, "--out", tmp_path / "vq", "--expect", "diffusion")
    assert "this is an autoencoder (stage 1), and a diffusion model (stage 2) was expected" in line
    assert "stage 2" in refused(capsys, released, "--out", tmp_path / "x", "--expect", "autoencoder", *SMALL_HEADS)
    assert run(first, "--out", tmp_path / "vq") == 0
    with pytest.raises(UserError, match=r"vq: these are weights of an autoencoder \(stage 1\)"):
        read_weights(tmp_path / "vq").difftalk()


def test_folders_of_diffusers_and_files_in_the_way_are_refused(tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    save_file({"a": torch.ones(1)}, theirs / "diffusion_pytorch_model.safetensors")
    assert "a folder of diffusers" in refused(capsys, theirs, "--out", tmp_path / "out")
    first = save(first_stage(), tmp_path / "first.ckpt")
    (tmp_path / "file").write_text("mine")
    assert "is a file; --out takes a folder" in refused(capsys, first, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_there_and_back_changes_nothing(tmp_path, runner, codec, said):
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": {"max_steps": 2}}
    runner("fit", "diffusion", "talk", over)
    last = runner.checkpoint("talk")
    assert run(last, "--out", tmp_path / "folder") == 0
    assert run(tmp_path / "folder", "--out", tmp_path / "one.ckpt") == 0
    assert "it holds no optimizer" in said()
    assert run(last, "--out", tmp_path / "raw", "--raw") == 1
    assert run(tmp_path / "one.ckpt", "--out", tmp_path / "again") == 0
    assert run(tmp_path / "again", "--out", tmp_path / "again") == 0  # onto itself
    weights = [read_weights(path) for path in (last, tmp_path / "folder", tmp_path / "one.ckpt", tmp_path / "again")]
    assert len({one.hash for one in weights}) == len({one.codec.hash for one in weights}) == 1
    assert all(one.config == weights[0].config for one in weights)
    assert "last.ckpt, a diffusion model (stage 2) of difftalk_pl, epoch" in weights[-1].origin
    over = {"model": {"init_args": {"autoencoder": str(tmp_path / "again"), "init_from": str(tmp_path / "one.ckpt")}}}
    started = runner("fit", "diffusion", "next", over | {"trainer": {"max_steps": 0}}).model
    assert started.weights_hash() == weights[0].hash


def test_a_checkpoint_made_from_a_folder_is_scored_like_the_one_it_came_from(tmp_path, runner, codec):
    over = {"model": {"init_args": {"autoencoder": str(codec)}}, "trainer": {"max_steps": 2}}
    fitted = runner("fit", "diffusion", "talk", over)
    assert run(runner.checkpoint("talk"), "--out", tmp_path / "one.ckpt") == 0
    scores = [
        runner("validate", "diffusion", "talk", over | {"ckpt_path": str(path)}).trainer.callback_metrics["val/loss"]
        for path in (runner.checkpoint("talk"), tmp_path / "one.ckpt")
    ]
    assert scores[0] == scores[1] and fitted.model.weights_hash() == read_weights(tmp_path / "one.ckpt").hash


@pytest.mark.slow
@pytest.mark.oracle
def test_an_imported_checkpoint_talks(tmp_path, released, oracles):
    """From the published file to a video, with the speech network that such a model needs."""
    out, person = tmp_path / "talking.mp4", tmp_path / "person.mp4"
    write_video(person, perform(seed=0, number=900, seconds=1.0).frames(256), crf=12)
    write_wav(tmp_path / "speech.wav", (3000 * np.sin(np.arange(16000 * 0.4) / 9)).astype(np.int16), 16000)
    assert run(released, "--out", tmp_path / "talk", *SMALL_HEADS) == 0
    inputs = ["--video", person, "--audio", tmp_path / "speech.wav", "--out", out]
    options = ["--deepspeech", oracles / "deepspeech_hidden96.pb", "--sampler", "dpm++", "--steps", "2"]
    arguments = ["--checkpoint", tmp_path / "talk", *inputs, *options, "--workers", "0", "--device", "cpu"]
    assert main(["animate", *map(str, arguments)]) == 0
    frames = list(read_frames(out))
    assert len(frames) == 10 and frames[0].shape == (256, 256, 3)


def test_cache_latents_and_stage_1_take_an_imported_first_stage(tmp_path, runner):
    state = first_stage(widths=(32, 32), blocks=1, codes=32)
    assert run(save(state, tmp_path / "first.ckpt"), "--out", tmp_path / "vq") == 0
    config = read_weights(tmp_path / "vq").config["autoencoder"]
    settings = {"model": {"init_args": {"autoencoder": config, "init_from": str(tmp_path / "vq")}}}
    started = runner("fit", "autoencoder", "more", settings | {"trainer": {"max_steps": 0}}).model
    assert started.weights_hash() == read_weights(tmp_path / "vq").hash
    root = tmp_path / "data"
    assert (
        main(["synthesize", "--out", str(root), "--clips", "1", "--seconds", "3", "--workers", "1", "--size", "64"])
        == 0
    )
    assert main(["cache-latents", "--data", str(root), "--autoencoder", str(tmp_path / "vq"), "--workers", "0"]) == 0
    (latents,) = root.glob(f"latents/{read_weights(tmp_path / 'vq').hash}-*/*.npy")
    image = next(iter(read_frames(next(root.glob("clips/*/video.mp4")))))
    z = FirstStage(state).encode(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1)
    cached = torch.from_numpy(np.load(latents, allow_pickle=False)[0, 0]).float()
    torch.testing.assert_close(cached, z[0], atol=1e-2, rtol=1e-2)  # stored in 16 bits
