"""The command import-checkpoint, on small checkpoints with the published names and with what is around them."""

import argparse
import collections
import os
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import AutoencoderConfig
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DenoiserConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training import published
from difftalk_pl.training.codec import LatentCodec
from difftalk_pl.training.importing import import_checkpoint, open_weights
from difftalk_pl.training.unpickling import read_file
from difftalk_pl.training.weights import DataContract, read_weights
from tests.models.conftest import GOLDEN, Oracle
from tests.published import (
    DENOISER,
    FIRST_STAGE,
    FirstStage,
    first_stage,
    first_stage_shapes,
    golden_state,
    save,
    schedule_buffers,
    stage_two,
)

TOLERANCE = 5e-5
VQ_F8 = {"widths": (32, 64, 64, 128), "latent": 4, "attention_levels": (3,)}


def training_state():
    """Objects that training programs put into their checkpoints."""
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    config = OmegaConf.create({"model": {"rate": 1e-6, "levels": [1, 2], "name": None, "ema": True}})
    defaults = collections.defaultdict(list)
    defaults["a"].append(1)
    return {
        "callbacks": {ModelCheckpoint: {"best_model_score": np.float64(0.5)}, EarlyStopping: {"wait": np.int64(3)}},
        "hyper_parameters": {"config": config, "namespace": argparse.Namespace(gpus=2), "defaults": defaults},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "folder": pathlib.PurePosixPath("a/b"),
    }


@pytest.fixture(autouse=True)
def head_width(monkeypatch):
    monkeypatch.setattr(published, "HEAD_WIDTH", 16)  # of the small published denoiser


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A stage 2 checkpoint of the released code with all that goes with it."""
    return save(stage_two(), tmp_path_factory.mktemp("released") / "epoch=3.ckpt", **training_state())


@pytest.mark.parametrize("sizes", [{}, {"mid_attention": False}, VQ_F8], ids=["vq-f4", "vq-f4-noattn", "vq-f8"])
@torch.no_grad()
def test_a_first_stage_computes_what_its_tensors_say(tmp_path, sizes, record_difference):
    state = first_stage(**sizes)
    extra = {"loss.discriminator.main.0.weight": torch.ones(4)}
    file = save(state | extra, tmp_path / "model.ckpt", **training_state())
    import_checkpoint(file, tmp_path / "vq")
    codec, reference = LatentCodec.load(tmp_path / "vq"), FirstStage(state)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = codec.encode(image)
    record_difference("published first stage, encoder", (z - reference.encode(image)).abs().max(), TOLERANCE)
    codebook, cells = state["quantize.embedding.weight"], z.movedim(1, -1)
    nearest = codebook[(cells[..., None, :] - codebook).square().sum(-1).argmin(-1)].movedim(-1, 1)
    picture = reference.decode(nearest).clamp(-1, 1)
    record_difference("published first stage, decoder", (codec.decode(z) - picture).abs().max(), TOLERANCE)


def test_names_and_shapes_of_the_tests_are_the_published_ones():
    expected = {name: tuple(value.shape) for name, value in golden_state("vq_width32").items()}
    assert {FIRST_STAGE + name: shape for name, shape in first_stage_shapes().items()} == expected


def test_sizes_of_the_published_networks_come_from_shapes():
    def config(**sizes):
        shapes = first_stage_shapes(**sizes)
        return published.autoencoder_config({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})

    assert config(widths=(128, 256, 512), codes=8192) == AutoencoderConfig()
    assert config(widths=(128, 256, 256, 512), codes=16384, latent=4, attention_levels=(3,)) == AutoencoderConfig(
        (128, 256, 256, 512), latent_channels=4, codes=16384, attention_levels=(False, False, False, True)
    )
    state = published.below(golden_state("unet_width32"), DENOISER)
    assert published.denoiser_config(state) == DenoiserConfig((32, 64, 96, 128), heads=(2, 4, 6, 8))


@pytest.mark.oracle
@torch.no_grad()
def test_a_released_checkpoint_computes_the_published_numbers(tmp_path, released, record_difference):
    """Its average has the published numbers, and the last step's weights are other ones."""
    import_checkpoint(released, tmp_path / "talk")
    weights = read_weights(tmp_path / "talk")
    assert weights.data == DataContract(features="deepspeech", mask="below_nose", size=256)
    assert weights.schedule == NoiseSchedule()
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


@pytest.mark.parametrize("schedule", [(200, 0.001, 0.02, "scaled_linear"), (1000, 1e-4, 2e-2, "linear")])
def test_the_schedule_is_read_off_the_betas(schedule):
    expected = NoiseSchedule(*schedule)
    assert published.noise_schedule({"betas": expected.betas.float()}) == expected
    with pytest.raises(UserError, match="no noise schedule that is built here"):
        published.noise_schedule({"betas": expected.betas.sort().values ** 1.5})
    assert schedule_buffers()["betas"].allclose(NoiseSchedule().betas.float())


def test_a_file_without_first_stage_takes_one_by_name(tmp_path):
    state = {name: value for name, value in stage_two().items() if not name.startswith(FIRST_STAGE)}
    file, out = save(state, tmp_path / "model.ckpt"), tmp_path / "talk"
    with pytest.raises(UserError, match=r"model\.ckpt: holds no first stage: give one by --autoencoder"):
        import_checkpoint(file, out)
    save_file({name: value.half() for name, value in first_stage().items()}, tmp_path / "first.safetensors")
    import_checkpoint(file, out, autoencoder=tmp_path / "first.safetensors")
    assert read_weights(out).codec.hash == open_weights(tmp_path / "first.safetensors").hash


def test_what_does_not_fit_is_named(tmp_path, released, codec):
    def refuse(state, message, **options):
        with pytest.raises(UserError, match=message):
            import_checkpoint(save(state, tmp_path / "model.ckpt"), tmp_path / "out", **options)

    first = first_stage()
    refuse(first | {"quantize.used": torch.ones(2)}, r"1 tensors have no place .*quantize\.used")
    refuse(
        {name: value for name, value in first.items() if name != "encoder.norm_out.bias"},
        r"Missing key.*conv_norm_out\.bias",
    )
    refuse({"features.0.weight": torch.ones(1)}, "neither a first stage nor stage 2 .*encoder.conv_out.weight")
    refuse(stage_two() | {"scale_factor": torch.tensor(0.18)}, "latents are scaled by 0.18")
    refuse(stage_two(), "takes 29 channels, mfcc has others", features="mfcc")
    broken = first | {"quant_conv.bias": torch.full((3,), torch.inf)}
    refuse(broken, r"not finite: vq\.quant_conv\.bias")
    assert not (tmp_path / "out").exists()
    import_checkpoint(codec, tmp_path / "ours")
    import_checkpoint(tmp_path / "ours", tmp_path / "again")
    assert read_weights(tmp_path / "again").hash == read_weights(codec).hash


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "old format"])
def test_code_in_a_file_is_refused_by_name_and_does_not_run(tmp_path, archive):
    path, made = tmp_path / "bomb.ckpt", tmp_path / "made"
    torch.save({"extra": Calls(os.system, f"touch {made}")}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=r"bomb\.ckpt: not a readable checkpoint: it refers to posix\.system"):
        read_file(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists(), "it is a real one"


def test_a_stand_in_runs_nothing(tmp_path):
    """A name in a module that has stand-ins is never looked up there."""
    path, made = tmp_path / "bomb.ckpt", tmp_path / "made"
    argument, text = f"open({str(made)!r}, 'w')".encode(), b"cbuiltins\neval\n"
    with zipfile.ZipFile(path, "w") as archive:
        pickled = b"\x80\x02" + text + b"X" + len(argument).to_bytes(4, "little") + argument + b"\x85R."
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
    read_file(path)
    assert not made.exists()
