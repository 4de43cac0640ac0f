"""The command `import-checkpoint`: checkpoints of the published code, and our own, to folders."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from difftalk_pl.data.features.kinds import Kind
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError
from difftalk_pl.models.configuration import plain
from difftalk_pl.models.denoiser import DiffTalkConfig
from difftalk_pl.training import published
from difftalk_pl.training.published import AVERAGE, CODEBOOK, DENOISER, ENCODERS, FIRST_STAGE, State, below
from difftalk_pl.training.unpickling import read_file
from difftalk_pl.training.weights import ENTRY, KINDS, DataContract, Stage, Weights, listed, read_weights

log = logging.getLogger(__name__)

LATENT_SIDE = 64  # of the released denoiser
CHANNELS = {"deepspeech": 29, "mfcc": 26}  # other features have many sizes
TRAINING_ONLY = (AVERAGE, "loss.")


def import_checkpoint(
    file: Path,
    out: Path,
    expect: Stage | None = None,
    raw: bool = False,
    half: bool = False,
    head_width: int = published.HEAD_WIDTH,
    features: Kind = "deepspeech",
    mask: MaskName = "below_nose",
    size: int | None = None,
    autoencoder: Path | None = None,
) -> None:
    """Turn a checkpoint into a folder that every command takes.

    FILE is a first stage of latent diffusion or taming, a stage 2 checkpoint of the released code, or a checkpoint or
    folder of this program. Sizes are read off the tensors; nothing in the file is run.

    Args:
        file: what to read.
        out: the folder to write.
        expect: refuse anything but an autoencoder, a diffusion model, or a SyncNet.
        raw: take a published checkpoint's weights of the last step instead of their moving average.
        half: store 16 bit floats.
        head_width: channels of an attention head of a published denoiser; the file does not say it.
        features: kind of features that published speech encoders were trained on; the file does not say it.
        mask: what was hidden while a published denoiser was trained; the file does not say it.
        size: side of the frames of a published denoiser; by default 64 times the factor of its first stage.
        autoencoder: first stage of a published denoiser whose file holds none.
    """
    weights = open_weights(file, raw, head_width, autoencoder)
    if expect is not None and weights.stage != expect:
        raise UserError(f"{file}: this is {KINDS[weights.stage].title}, and {KINDS[expect].title} was expected")
    if "data" not in weights.config and weights.stage == "diffusion":
        weights.config["data"] = plain(_data_contract(weights, features, mask, size))
    weights.build()
    weights.save_pretrained(out, half)
    log.info("%s: %s, hash of its tensors %s", out, KINDS[weights.stage].title, weights.hash)


def open_weights(
    file: Path, raw: bool = False, head_width: int = published.HEAD_WIDTH, autoencoder: Path | None = None
) -> Weights:
    """Read the weights of a published checkpoint, or of ours. Raises UserError that says why it cannot."""
    content = {ENTRY: None} if file.is_dir() else read_file(file)
    if isinstance(content, Mapping) and ENTRY in content:
        return read_weights(file)
    try:
        state = _tensors(content)
        if any(name.startswith(DENOISER) for name in state):
            weights = _diffusion(state, raw, head_width, autoencoder)
        else:
            weights = _first_stage(below(state, FIRST_STAGE) or state, raw)
    except KeyError as error:
        raise UserError(
            f"{file}: neither a first stage nor stage 2 of the published code: {error} is missing"
        ) from error
    except (UserError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(f"{file}: {error}") from error
    weights.path = file
    return weights


def _tensors(content: Any) -> dict[str, Tensor]:
    """Return the state dict below `state_dict`, or the content itself, as 32 bit floats."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError("no state dict: expected names with tensors, at the top or in the entry state_dict")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _first_stage(state: State, raw: bool) -> Weights:
    """Convert a VQ autoencoder."""
    if CODEBOOK not in state:
        raise KeyError(CODEBOOK)
    network = {name: value for name, value in state.items() if not name.startswith(TRAINING_ONLY)}
    if not raw and any(name.startswith(AVERAGE) for name in state):
        network = published.averaged(state, network)
    config = published.autoencoder_config(network)
    tensors = published.convert_autoencoder(network, len(config.block_out_channels))
    log.info("first stage: widths %s, %d codes", config.block_out_channels, config.codes)
    return Weights("autoencoder", {"autoencoder": plain(config)}, tensors)


def _diffusion(state: State, raw: bool, head_width: int, autoencoder: Path | None) -> Weights:
    """Convert a stage 2 checkpoint of the released code; the average covers the denoiser alone."""
    known = (DENOISER, AVERAGE, FIRST_STAGE, *ENCODERS)
    if unknown := [name for name in state if "." in name and not name.startswith(known)]:  # buffers have no dot
        raise UserError(f"{len(unknown)} tensors have no place in this network: {listed(unknown)}")
    if (scale := float(state.get("scale_factor", 1.0))) != 1:
        raise UserError(f"latents are scaled by {scale:g}, and here they are never scaled")
    network = below(state, "model.")
    if not raw and any(name.startswith(AVERAGE) for name in state):
        network = published.averaged(state, network)
    denoiser = below(network, "diffusion_model.")
    config = DiffTalkConfig(published.denoiser_config(denoiser, head_width), published.conditioning_config(state))
    log.info("denoiser: widths %s, heads %s", config.denoiser.block_out_channels, config.denoiser.heads)
    if first := below(state, FIRST_STAGE):
        codec = _first_stage(first, raw=True)
    elif autoencoder is not None:
        codec = open_weights(autoencoder)
    else:
        raise UserError("holds no first stage: give one by --autoencoder")
    tensors = published.convert_denoiser(denoiser, config.denoiser.layers_per_block)
    settings = {"difftalk": plain(config), "schedule": plain(published.noise_schedule(state))}
    return Weights("diffusion", settings, tensors | published.convert_conditioning(state), codec)


def _data_contract(weights: Weights, features: str, mask: str, size: int | None) -> DataContract:
    """Return what the data of a published denoiser were. Raises UserError where its speech encoder does not fit."""
    channels = weights.config["difftalk"]["conditioning"]["audio_channels"]
    if channels != CHANNELS.get(features, channels):
        raise UserError(f"its speech encoder takes {channels} channels, {features} has others: give --features")
    return DataContract(features, mask, size or LATENT_SIDE * weights.autoencoder().config.factor)
