"""Published state dicts: what is taken of them, and by name what is not."""

import json
import re
from typing import get_args, get_type_hints

import pytest
import torch

from difftalk_pl.__main__ import main
from difftalk_pl.data.prepare import prepare
from difftalk_pl.errors import UserError
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.released import SIZES, Unsaid
from difftalk_pl.training.weights import read_weights
from tests.published import (
    DENOISER,
    FIRST_STAGE,
    SMALL_HEADS,
    averages,
    first_stage,
    golden_state,
    refused,
    run,
    save,
    schedule_buffers,
    stage_two,
)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return save(stage_two(), tmp_path_factory.mktemp("released") / "model.ckpt")


def without(*names):
    return {name: value for name, value in stage_two().items() if name not in names}


def without_modules(*prefixes):
    return {name: value for name, value in stage_two().items() if not name.startswith(prefixes)}


MISSING = f"{DENOISER}input_blocks.1.0.in_layers.2.weight"
AVERAGE = "model_ema.diffusion_modelinput_blocks10in_layers2weight"
WEIGHT = "cond_stage_model_for_audio.encoder_conv.0.weight"
CODEBOOK = f"{FIRST_STAGE}quantize.embedding.weight"
REFUSED = {
    "missing": (lambda: without(MISSING, AVERAGE), r"1 missing: denoiser\.down_blocks\.0\..*conv1\.weight"),
    "missing but for its average": (
        lambda: without(MISSING),
        r"1 averages of weights .*: model_ema\..*in_layers2weight",
    ),
    "average of nothing": (
        lambda: stage_two() | {"model_ema.lip_net": torch.ones(2)},
        r"1 averages .*model_ema\.lip_net",
    ),
    "no average": (
        lambda: without("model_ema.diffusion_modelout0weight"),
        r"1 weights have no average: diffusion_model\.out\.0\.weight; --raw",
    ),
    "unknown module": (lambda: stage_two() | {"lip_net.weight": torch.ones(2)}, r"1 tensors .*lip_net\.weight"),
    "scaled": (lambda: stage_two() | {"scale_factor": torch.tensor(0.18)}, r"latents are scaled by 0\.18"),
    "cosine": (lambda: stage_two() | {"betas": torch.linspace(0, 1, 1000).sin() / 9 + 1e-4}, "no other noise schedule"),
    "other shape": (
        lambda: stage_two() | {"cond_stage_model_for_ldm.encoder_fc1.0.weight": torch.ones(128, 136)},
        r"1 of another shape: conditioning\.landmarks\.encoder_fc1\.0\.weight \(128, 136\) in place of \(128, 78\)",
    ),
    "other features": (
        lambda: stage_two() | {"cond_stage_model_for_audio.encoder_conv.0.weight": torch.ones(32, 44, 3)},
        "takes 44 channels, deepspeech has 29: give --features",
    ),
    "no encoders": (
        lambda: golden_state("unet_width32") | {"cond_stage_model.transformer.weight": torch.ones(1)},
        "not of DiffTalk",
    ),
    "scales": (lambda: stage_two() | {"scale_factor": torch.ones(3)}, r"scale_factor has the shape \(3,\)"),
    "one beta": (lambda: stage_two() | {"betas": torch.tensor(0.1)}, r"betas has the shape \(\) .*a row of floats"),
    "no betas": (lambda: stage_two() | {"betas": torch.zeros(0)}, r"betas has the shape \(0,\)"),
    "not a number": (
        lambda: stage_two() | {WEIGHT: stage_two()[WEIGHT] * float("nan")},
        "1 tensors .*not finite.*audio",
    ),
    "infinite": (lambda: stage_two() | {CODEBOOK: torch.full((64, 3), torch.inf)}, r"not finite.*quantize\.embedding"),
    "whole numbers": (
        lambda: stage_two() | {WEIGHT: stage_two()[WEIGHT].long()},
        r"1 of another kind: conditioning\.audio\.encoder_conv\.0\.weight whole numbers in place of floats",
    ),
    "complex": (lambda: stage_two() | {WEIGHT: stage_two()[WEIGHT] + 0j}, r"complex numbers in place of floats"),
    "sparse": (lambda: stage_two() | {WEIGHT: stage_two()[WEIGHT].to_sparse()}, r"1 tensors are sparse .*audio"),
    "only averages": (lambda: without_modules(DENOISER), "it holds averages alone .*a checkpoint with both"),
    "no denoiser": (
        lambda: without_modules(DENOISER, "model_ema."),
        r"a first stage, no denoiser .*tensors that belong to neither: .*cond_stage_model_for_audio\.encoder_conv",
    ),
    "beside a first stage": (
        lambda: without_modules(DENOISER, "model_ema.", "cond_") | {"lip_net.weight": torch.ones(2)},
        r"1 tensors that belong to neither: lip_net\.weight",
    ),
    "classifier": (lambda: {"features.0.weight": torch.ones(1)}, "image classifier"),
    "diffusers": (lambda: {"down_blocks.0.resnets.0.norm1.weight": torch.ones(1)}, "names of diffusers"),
    "gumbel": (lambda: {"quantize.embed.weight": torch.ones(1)}, "Gumbel"),
    "kl": (lambda: {"encoder.down.0.block.0.norm1.weight": torch.ones(1), "quant_conv.weight": torch.ones(1)}, "KL"),
    "anything": (lambda: {f"w{n}": torch.ones(1) for n in range(20)}, r"20 tensors of no network known .* and 8 more"),
    "nothing": (dict, "holds no tensors"),
    "no tensors": (lambda: {"a": 1, "b": torch.ones(1)}, "no state dict: a is no tensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, capsys, case):
    make, complaint = REFUSED[case]
    file = save(make(), tmp_path / "model.ckpt")
    line = refused(capsys, file, "--out", tmp_path / "out", *SMALL_HEADS)
    assert line.startswith(f"difftalk_pl import-checkpoint: {file}: ")
    assert re.search(complaint, line), line
    assert not (tmp_path / "out").exists()


def test_heads_that_do_not_divide_a_level_are_refused(tmp_path, capsys, released):
    assert "give another --head-width" in refused(capsys, released, "--out", tmp_path / "out", "--head-width", 50)


@pytest.mark.parametrize("width", [0, -16])
def test_heads_need_a_width(tmp_path, capsys, released, width):
    line = refused(capsys, released, "--out", tmp_path / "out", "--head-width", width)
    assert f"--head-width {width}: a width of 1 or more" in line


@pytest.mark.parametrize("size", [0, -64, 250, 1024])
def test_frames_have_a_size_that_prepare_makes(tmp_path, capsys, released, size):
    line = refused(capsys, released, "--out", tmp_path / "out", "--size", size, *SMALL_HEADS)
    assert f"--size {size}: frames are of 64, 128, 256, 512 px" in line
    assert get_args(get_type_hints(prepare)["size"]) == SIZES


def test_frames_go_with_the_factor_of_the_first_stage(tmp_path, capsys):
    """Five levels halve a side four times: 64 latents a side would be frames of 1024 px."""
    state = {name: value for name, value in stage_two().items() if not name.startswith(FIRST_STAGE)}
    deep = {FIRST_STAGE + name: value for name, value in first_stage(widths=(32,) * 5).items()}
    file = save(state | deep, tmp_path / "model.ckpt")
    line = refused(capsys, file, "--out", tmp_path / "out", *SMALL_HEADS)
    assert "frames of 1024 px and a first stage that makes them 16 times smaller" in line
    assert run(file, "--out", tmp_path / "out", "--size", 512, *SMALL_HEADS) == 0
    assert read_weights(tmp_path / "out").data.size == 512


def test_features_of_other_channels_are_refused_and_never_reach_animate(tmp_path, capsys, released):
    other = (released, "--out", tmp_path / "talk", *SMALL_HEADS)
    assert "takes 29 channels, mfcc has 26: give --features" in refused(capsys, *other, "--features", "mfcc")
    assert run(*other, "--features", "hubert") == 0  # of which there are many sizes
    config = tmp_path / "talk" / "config.json"
    content = json.loads(config.read_text())
    content["config"]["data"]["features"] = "mfcc"  # as an import without the check would say
    config.write_text(json.dumps(content))
    inputs = ["--video", tmp_path / "a.mp4", "--audio", tmp_path / "a.wav", "--out", tmp_path / "b.mp4"]
    assert main(["animate", *map(str, ["--checkpoint", tmp_path / "talk", *inputs, "--device", "cpu"])]) == 1
    assert "takes features of 29 channels and says that they are mfcc, which has 26" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("schedule", [{}, {"steps": 200, "start": 0.001, "end": 0.02}], ids=["released", "another"])
def test_a_file_of_16_bits_keeps_its_schedule(tmp_path, kind, schedule):
    state = stage_two() | schedule_buffers(**schedule) | {"scale_factor": torch.tensor(1.0)}
    stored = {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}
    assert run(save(stored, tmp_path / "model.ckpt"), "--out", tmp_path / "talk", *SMALL_HEADS, "--raw") == 0
    weights = read_weights(tmp_path / "talk")
    if not schedule:
        assert weights.schedule == NoiseSchedule()
    expected = NoiseSchedule(**schedule)
    exactness = torch.finfo(kind).eps
    torch.testing.assert_close(weights.schedule.betas, expected.betas, rtol=exactness, atol=0)
    name = f"{FIRST_STAGE}encoder.conv_in.weight"
    assert torch.equal(weights.codec.state["vq.encoder.conv_in.weight"], state[name].to(kind).float())


def test_a_schedule_beyond_what_16_bits_round_is_not_the_released_one(tmp_path):
    buffers = {name: value.half() for name, value in schedule_buffers(end=0.0197).items()}
    assert run(save(stage_two() | buffers, tmp_path / "model.ckpt"), "--out", tmp_path / "talk", *SMALL_HEADS) == 0
    assert read_weights(tmp_path / "talk").schedule.end == pytest.approx(0.0197, rel=5e-4)


def test_a_first_stage_is_taken_out_of_a_file_with_its_schedule_alone(tmp_path):
    file = save(without_modules(DENOISER, "model_ema.", "cond_"), tmp_path / "model.ckpt")
    assert run(file, "--out", tmp_path / "vq") == 0
    assert read_weights(tmp_path / "vq").stage == "autoencoder"


def test_averages_of_the_discriminator_are_known(tmp_path, capsys):
    """The published first stage averages all that learns, its loss included."""
    loss = {"loss.discriminator.main.0.weight": torch.ones(4)}
    state = first_stage() | loss
    file = save(state | averages(state, module=""), tmp_path / "model.ckpt")
    assert run(file, "--out", tmp_path / "vq") == 0
    alone = save(first_stage() | averages(state, module=""), tmp_path / "alone.ckpt")
    assert "model_ema.lossdiscriminatormain0weight" in refused(capsys, alone, "--out", tmp_path / "other")


def test_options_are_checked_without_the_command_line():
    with pytest.raises(UserError, match="--head-width 0"):
        Unsaid(head_width=0)
