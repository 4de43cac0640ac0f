"""The command `import-checkpoint`: checkpoints of the published code, and our own, to folders."""

import logging
from collections.abc import Mapping
from pathlib import Path

from difftalk_pl.data.features.kinds import Kind
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import ConditioningConfig
from difftalk_pl.models.denoiser import DiffTalkConfig
from difftalk_pl.training import published
from difftalk_pl.training.published import AVERAGE, DENOISER, ENCODERS, FIRST_STAGE, State, below
from difftalk_pl.training.unpickling import read_file
from difftalk_pl.training.weights import ENTRY, KINDS, DataContract, Weights, listed, plain, read_weights

log = logging.getLogger(__name__)

LATENT_SIDE = 64  # of the released denoiser
CHANNELS = {"deepspeech": 29, "mfcc": 26}  # other features have many sizes


def import_checkpoint(
    checkpoint: Path,
    out: Path,
    half: bool = False,
    features: Kind = "deepspeech",
    mask: MaskName = "below_nose",
    size: int | None = None,
    autoencoder: Path | None = None,
) -> None:
    """Turn a checkpoint into a folder that every command takes.

    It is a first stage of latent diffusion or taming, a stage 2 checkpoint of the released code, or a checkpoint or
    folder of this program. Moving averages are taken where there are some. Sizes are read off the tensors; nothing in
    the file is run.

    Args:
        checkpoint: what to read.
        out: the folder to write.
        half: store 16 bit floats.
        features: kind of features that published speech encoders were trained on; the file does not say it.
        mask: what was hidden while a published denoiser was trained; the file does not say it.
        size: side of the frames of a published denoiser; by default 64 times the factor of its first stage.
        autoencoder: first stage of a published denoiser whose file holds none.
    """
    weights = open_weights(checkpoint, autoencoder)
    if "data" not in weights.config and weights.stage == "diffusion":
        channels = weights.config["difftalk"]["conditioning"]["audio_channels"]
        if channels != CHANNELS.get(features, channels):
            raise UserError(f"its speech encoder takes {channels} channels, {features} has others: give --features")
        size = size or LATENT_SIDE * weights.autoencoder().config.factor
        weights.config["data"] = plain(DataContract(features, mask, size))
    weights.build(weights.stage)
    weights.save_pretrained(out, half)
    log.info("%s: %s, hash of its tensors %s", out, KINDS[weights.stage].title, weights.hash)


def open_weights(path: Path, autoencoder: Path | None = None) -> Weights:
    """Read the weights of a published checkpoint, or of ours. Raises UserError that says why it cannot."""
    content = {ENTRY: None} if path.is_dir() else read_file(path)
    if isinstance(content, Mapping) and ENTRY in content:
        return read_weights(path)
    try:
        state = content.get("state_dict", content)
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        if any(name.startswith(DENOISER) for name in state):
            weights = _diffusion(state, autoencoder)
        else:
            weights = _first_stage(below(state, FIRST_STAGE) or state)
    except (KeyError, AttributeError) as error:
        raise UserError(f"{path}: neither a first stage nor stage 2 of the published code: no {error}") from error
    except (UserError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(f"{path}: {error}") from error
    weights.path = path
    return weights


def _first_stage(state: State) -> Weights:
    """Convert a VQ autoencoder."""
    network = {name: value for name, value in state.items() if not name.startswith((AVERAGE, "loss."))}
    network = published.averaged(state, network)
    config = published.autoencoder_config(network)
    tensors = published.convert_autoencoder(network, len(config.block_out_channels))
    log.info("first stage: widths %s, %d codes", config.block_out_channels, config.codes)
    return Weights("autoencoder", {"autoencoder": plain(config)}, tensors)


def _diffusion(state: State, autoencoder: Path | None) -> Weights:
    """Convert a stage 2 checkpoint of the released code; the average covers the denoiser alone."""
    known = (DENOISER, AVERAGE, FIRST_STAGE, *ENCODERS)
    if unknown := [name for name in state if "." in name and not name.startswith(known)]:  # buffers have no dot
        raise UserError(f"{len(unknown)} tensors have no place in this network: {listed(unknown)}")
    if (scale := float(state.get("scale_factor", 1.0))) != 1:
        raise UserError(f"latents are scaled by {scale:g}, and here they are never scaled")
    denoiser = below(published.averaged(state, below(state, "model.")), "diffusion_model.")
    channels = state["cond_stage_model_for_audio.encoder_conv.0.weight"].shape[1]
    config = DiffTalkConfig(published.denoiser_config(denoiser), ConditioningConfig(audio_channels=channels))
    log.info("denoiser: widths %s, heads %s", config.denoiser.block_out_channels, config.denoiser.heads)
    if first := below(state, FIRST_STAGE):
        codec = _first_stage(first)
    elif autoencoder is not None:
        codec = open_weights(autoencoder)
    else:
        raise UserError("holds no first stage: give one by --autoencoder")
    tensors = published.convert_denoiser(denoiser, config.denoiser.layers_per_block)
    settings = {"difftalk": plain(config), "schedule": plain(published.noise_schedule(state))}
    return Weights("diffusion", settings, tensors | published.convert_conditioning(state), codec)
