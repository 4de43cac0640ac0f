"""The command `import-checkpoint`: checkpoints of the published code, and our own, to folders and back."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from difftalk_pl.data.features import check_kinds
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError
from difftalk_pl.models.difftalk import DiffTalkConfig
from difftalk_pl.stages import published
from difftalk_pl.stages.published import AVERAGE, CODEBOOK, DENOISER, ENCODERS, FIRST_STAGE, State, below
from difftalk_pl.stages.safe_unpickling import listed, read_file
from difftalk_pl.stages.weights import ENTRY, DataContract, Stage, Weights, plain, read_weights, write_checkpoint

log = logging.getLogger(__name__)

CHECKPOINT = ".ckpt"
DEEPSPEECH_CHANNELS = 29
LATENT_SIDE = 64  # of the released denoiser; a picture's side is that times the first stage's factor
TRAINING_ONLY = ("loss.", AVERAGE)  # in a first stage: discriminator and LPIPS, averages
BUFFERS = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("lvlb_weights", "logvar", "scale_factor"),
}
STAGES = {"autoencoder": "an autoencoder (stage 1)", "diffusion": "a diffusion model (stage 2)"}
OTHERS = {  # start of a tensor's name -> what has such tensors
    "quantize.embed.": "an autoencoder with a Gumbel quantiser; one with nearest codes is needed",
    "quantize.proj.": "an autoencoder with a Gumbel quantiser; one with nearest codes is needed",
    "cond_stage_model.": "a latent diffusion model, but not of DiffTalk: it has no encoders of speech and landmarks",
    "down_blocks.": "a network under the names of diffusers; the published code's names are expected",
    "encoder.down_blocks.": "an autoencoder under the names of diffusers; the published code's names are expected",
    "transformer.": "a transformer",
    "features.": "an image classifier, by its names",
    "layer1.": "an image classifier, by its names",
}


@dataclass(frozen=True)
class Unsaid:
    """What a published checkpoint does not say; the defaults are as released."""

    head_width: int = published.HEAD_WIDTH
    features: str = "deepspeech"
    mask: str = "below_nose"
    size: int | None = None
    raw: bool = False
    autoencoder: Path | None = None


def import_checkpoint(
    file: Path,
    out: Path,
    expect: Stage | None = None,
    raw: bool = False,
    half: bool = False,
    head_width: int = published.HEAD_WIDTH,
    features: str = "deepspeech",
    mask: MaskName = "below_nose",
    size: int | None = None,
    autoencoder: Path | None = None,
) -> None:
    """Turn a checkpoint into a folder that every command takes, or a folder back into one checkpoint.

    FILE is a first stage of latent diffusion or taming, a stage 2 checkpoint of the released code, a checkpoint of this
    program or a folder made by export. Sizes are read off the tensors; nothing in the file is run.

    Args:
        file: what to read.
        out: the folder to write, or one file where the name ends in .ckpt.
        expect: refuse anything but an autoencoder, or a diffusion model.
        raw: take the weights of the last step in place of their moving average.
        half: store 16 bit floats, in a folder.
        head_width: channels of an attention head of a published denoiser; the file does not say it.
        features: kind of features that published speech encoders were trained on; the file does not say it.
        mask: what was hidden while a published denoiser was trained; the file does not say it.
        size: side of the frames of a published denoiser; by default 64 times the factor of its first stage.
        autoencoder: first stage of a published denoiser whose file holds none.
    """
    check_kinds(features)
    weights = open_weights(file, Unsaid(head_width, features, mask, size, raw, autoencoder))
    if expect is not None and weights.stage != expect:
        raise UserError(f"{file}: this is {STAGES[weights.stage]}, and {STAGES[expect]} was expected")
    if out.suffix == CHECKPOINT:
        write_checkpoint(weights, out)
        log.info("%s: for inference and init_from; it holds no optimizer, so fit cannot go on from it", out)
    elif out.is_file():
        raise UserError(f"{out}: is a file; --out takes a folder, or a name that ends in {CHECKPOINT}")
    else:
        weights.save_pretrained(out, half)
    log.info("%s: %s, hash %s", out, STAGES[weights.stage], weights.hash)


def open_weights(file: Path, unsaid: Unsaid = Unsaid()) -> Weights:
    """Weights from whatever `import-checkpoint` takes. Raises UserError that says what was found instead."""
    if file.is_dir():
        _refuse_diffusers_folder(file)
        return _ours(file, {}, unsaid.raw)
    content = read_file(file)
    if isinstance(content, Mapping) and ENTRY in content:
        return _ours(file, content, unsaid.raw)
    progress = _progress(content)
    log.info("%s: %s", file, progress or "no count of epochs or steps")
    try:
        state = _tensors(content)
        weights = _diffusion(state, unsaid) if _has(state, DENOISER) else _first_stage(state, unsaid.raw)
        weights.path = file
        weights.check()
    except (UserError, ValueError) as error:
        message = str(error).removeprefix(f"{file}: ")
        raise UserError(f"{file}: {message}") from error
    weights.origin = ", ".join(filter(None, [file.name, weights.origin, progress]))
    return weights


def _ours(file: Path, content: Mapping[str, Any], raw: bool) -> Weights:
    if raw:
        raise UserError(f"{file}: --raw is for published checkpoints; of ours, the average is taken where there is one")
    weights = read_weights(file)
    weights.check()
    average = ", averaged weights" if "current_model_state" in content else ""
    found = f"{STAGES[weights.stage]} of difftalk_pl{average}"
    log.info("%s", ", ".join(filter(None, [f"{file}: {found}", _progress(content)])))
    _say_parts(weights)
    weights.origin = weights.origin or ", ".join(filter(None, [file.name, found, _progress(content)]))
    return weights


def _progress(content: Any) -> str:
    """How far the training had come, where the checkpoint says it."""
    if not isinstance(content, Mapping):
        return ""
    counts = {name: content.get(name) for name in ("epoch", "global_step")}
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if isinstance(count, int))


def _refuse_diffusers_folder(folder: Path) -> None:
    if (folder / "diffusion_pytorch_model.safetensors").exists() or (folder / "model_index.json").exists():
        raise UserError(f"{folder}: a folder of diffusers; a folder made by export, or a published file, is expected")


def _tensors(content: Any) -> dict[str, Tensor]:
    """The state dict of a checkpoint, whether it lies below `state_dict` or is all there is."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise UserError(f"holds {_article(type(content).__name__)}, not named tensors")
    if others := [str(name) for name, value in state.items() if not isinstance(value, Tensor)]:
        raise UserError(f"no state dict: {listed(others)} {'is' if len(others) == 1 else 'are'} no tensors")
    if not state:
        raise UserError("holds no tensors")
    return {str(name): value.float() if value.is_floating_point() else value for name, value in state.items()}


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _has(state: State, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def _first_stage(state: State, raw: bool) -> Weights:
    """A VQ autoencoder, alone or as the part of a stage 2 checkpoint without a denoiser."""
    state = below(state, FIRST_STAGE) or state
    if CODEBOOK not in state or not _has(state, "encoder.down."):
        raise UserError(_what_else(state))
    network = {name: value for name, value in state.items() if not name.startswith(TRAINING_ONLY)}
    average = _has(state, AVERAGE) and not raw
    if average:
        network = published.averaged(state, network)
    config = published.autoencoder_config(network)
    converted = published.convert_autoencoder(network, len(config.block_out_channels))
    weights = Weights("autoencoder", {"autoencoder": plain(config)}, converted)
    weights.origin = f"a published first stage{', averaged weights' if average else ''}"
    sizes = config.block_out_channels, config.codes, config.latent_channels
    log.info("first stage: widths %s, %d codes of width %d", *sizes)
    _say_left_out([name for name in state if name.startswith(TRAINING_ONLY)])
    _say_parts(weights)
    return weights


def _what_else(state: State) -> str:
    """What tensors are that are of no kind known here, by their names."""
    if _has(state, "encoder.down.") and _has(state, "quant_conv.") and not _has(state, "quantize."):
        return "an autoencoder with a Gaussian latent (KL); one with a codebook is needed"
    for start, kind in OTHERS.items():
        if _has(state, start):
            return kind
    return f"{len(state)} tensors of no network known here: {listed(list(state))}"


def _diffusion(state: State, unsaid: Unsaid) -> Weights:
    """A stage 2 checkpoint of the released code."""
    if missing := [name for name in ENCODERS if not _has(state, name)]:
        raise UserError(f"{_what_else(state)}; no tensors below {listed(missing)}")
    known = (DENOISER, AVERAGE, FIRST_STAGE, *ENCODERS)
    if unknown := [name for name in state if not name.startswith(known) and name not in BUFFERS]:
        raise UserError(f"{len(unknown)} tensors have no place in this network: {listed(unknown)}")
    average = _has(state, AVERAGE) and not unsaid.raw
    network = published.averaged(state, below(state, "model.")) if average else below(state, "model.")
    denoiser = below(network, "diffusion_model.")
    config = DiffTalkConfig(
        published.denoiser_config(denoiser, unsaid.head_width), published.conditioning_config(state)
    )
    codec = _codec(state, unsaid)
    settings = {
        "difftalk": plain(config),
        "schedule": plain(published.noise_schedule(state)),
        "data": plain(_contract(config, codec, unsaid)),
    }
    tensors = published.convert_denoiser(denoiser, config.denoiser.layers_per_block)
    weights = Weights("diffusion", settings, tensors | published.convert_conditioning(state), codec)
    weights.origin = f"released code, stage 2, {'averaged' if average else 'raw'} denoiser"
    _say_diffusion(state, config, weights, average)
    return weights


def _codec(state: State, unsaid: Unsaid) -> Weights:
    """The frozen first stage; latents are not scaled here, as the released code does not either."""
    if "scale_factor" in state and abs(state["scale_factor"].item() - 1) > 1e-6:
        raise UserError(f"latents are scaled by {state['scale_factor'].item():g}, and here they are never scaled")
    if _has(state, FIRST_STAGE):
        return _first_stage(below(state, FIRST_STAGE), raw=True)
    if unsaid.autoencoder is None:
        raise UserError("holds no first stage: give one by --autoencoder")
    found = open_weights(unsaid.autoencoder)
    return found.codec or found


def _contract(config: DiffTalkConfig, codec: Weights, unsaid: Unsaid) -> DataContract:
    """What its data were. Raises UserError where speech features or latents are not of the network's width."""
    channels = config.conditioning.audio_channels
    expects = DEEPSPEECH_CHANNELS if unsaid.features == "deepspeech" else channels
    if channels != expects:
        raise UserError(f"its speech encoder takes {channels} channels, deepspeech has {expects}: give --features")
    latent = codec.config["autoencoder"]["latent_channels"]
    expected = (3 * latent, latent)
    if (config.denoiser.in_channels, config.denoiser.out_channels) != expected:
        raise UserError(
            f"its denoiser takes {config.denoiser.in_channels} channels and gives {config.denoiser.out_channels}; "
            f"with this first stage {expected[0]} and {expected[1]} are expected"
        )
    factor = 2 ** (len(codec.config["autoencoder"]["block_out_channels"]) - 1)
    return DataContract(features=unsaid.features, mask=unsaid.mask, size=unsaid.size or LATENT_SIDE * factor)


def _say_diffusion(state: State, config: DiffTalkConfig, weights: Weights, average: bool) -> None:
    network, data = config.denoiser, weights.data
    log.info("denoiser: widths %s, attention %s", network.block_out_channels, network.attention_levels)
    updates = state.get(AVERAGE + "num_updates")
    if average:
        log.info("its moving average is taken%s", "" if updates is None else f", of {int(updates)} updates")
    else:
        log.info("the weights of its last step are taken; encoders are never averaged")
    schedule = weights.schedule
    where = "of the file" if "betas" in state else "as released: the file has none"
    log.info("noise: %d steps, %s, %g to %g, %s", schedule.steps, schedule.kind, schedule.start, schedule.end, where)
    _say_left_out([name for name in state if name.startswith(AVERAGE) and not average])
    _say_parts(weights)
    log.info(
        "not in the file, as released or as given: heads %s, features %s, mask %s, frames of %d px, landmarks times %g",
        *(network.heads, data.features, data.mask, data.size, config.conditioning.landmark_scale),
    )


def _say_left_out(names: list[str]) -> None:
    if names:
        modules = sorted({name.split(".")[0] for name in names})
        log.info("left out: %d tensors for training only, of %s", len(names), listed(modules))


def _say_parts(weights: Weights) -> None:
    log.info("%s", ", ".join(f"{part} {number:,} parameters" for part, number in weights.parameters.items()))
