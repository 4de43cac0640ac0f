"""State dicts of the published code to weights of the project, with a word on all that is taken and left out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from difftalk_pl.data.features.mfcc import MFCC
from difftalk_pl.errors import UserError
from difftalk_pl.models.difftalk import DiffTalkConfig
from difftalk_pl.training import published
from difftalk_pl.training.contract import DataContract
from difftalk_pl.training.published import AVERAGE, BUFFERS, CODEBOOK, DENOISER, ENCODERS, FIRST_STAGE, State, below
from difftalk_pl.training.safe_unpickling import listed
from difftalk_pl.training.weights import Weights, plain

log = logging.getLogger(__name__)

CHANNELS = {"deepspeech": 29, "mfcc": MFCC.channels}  # others have many sizes
LATENT_SIDE = 64  # of the released denoiser; a picture's side is that times the first stage's factor
SIZES = (64, 128, 256, 512)  # of the frames that `prepare` makes
LOSS = "loss."  # in a first stage: discriminator and LPIPS
TRAINING_ONLY = (LOSS, AVERAGE)
OTHERS = {  # start of a tensor's name -> what has such tensors
    "quantize.embed.": "an autoencoder with a Gumbel quantiser; one with nearest codes is needed",
    "quantize.proj.": "an autoencoder with a Gumbel quantiser; one with nearest codes is needed",
    "cond_stage_model.": "a latent diffusion model, but not of DiffTalk: it has no encoders of speech and landmarks",
    "down_blocks.": "a network under the names of diffusers; the published code's names are expected",
    "encoder.down_blocks.": "an autoencoder under the names of diffusers; the published code's names are expected",
    "transformer.": "a transformer",
    "features.": "an image classifier, by its names",
    "netcnnlip.": "a published SyncNet, which needs no import: name the file where a SyncNet is asked for",
    "netcnnaud.": "a published SyncNet, which needs no import: name the file where a SyncNet is asked for",
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

    def __post_init__(self) -> None:
        if self.head_width < 1:
            raise UserError(f"--head-width {self.head_width}: a width of 1 or more is expected")
        if self.size is not None and self.size not in SIZES:
            raise UserError(f"--size {self.size}: frames are of {', '.join(map(str, SIZES))} px")


def from_published(state: State, unsaid: Unsaid, open_first_stage: Callable[[Path], Weights]) -> Weights:
    """Weights of whichever stage it is. Raises UserError that says what it is instead.

    open_first_stage: reads the file of `unsaid.autoencoder`, where it is needed.
    """
    if _has(state, DENOISER):
        return _diffusion(state, unsaid, open_first_stage)
    if _has(state, FIRST_STAGE):
        _refuse_beside_first_stage(state)
        return _first_stage(below(state, FIRST_STAGE), unsaid.raw)
    return _first_stage(state, unsaid.raw)


def _refuse_beside_first_stage(state: State) -> None:
    """A file of stage 2 without its denoiser must not pass for the first stage that lies in it."""
    if _has(state, AVERAGE):
        raise UserError(
            f"of its denoiser it holds averages alone ({AVERAGE}…), whose names have lost their dots, and nothing "
            f"below {DENOISER}: a checkpoint with both is needed"
        )
    known = (FIRST_STAGE, LOSS)
    if left := [name for name in state if not name.startswith(known) and name not in BUFFERS]:
        raise UserError(
            f"a first stage, no denoiser (nothing below {DENOISER}), and {len(left)} tensors that belong to neither: "
            f"{listed(left)}"
        )
    _say_left_out([name for name in state if not name.startswith(FIRST_STAGE)])


def _has(state: State, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def _first_stage(state: State, raw: bool) -> Weights:
    """A VQ autoencoder. Its averages may cover the discriminator, too."""
    if CODEBOOK not in state or not _has(state, "encoder.down."):
        raise UserError(_what_else(state))
    network = {name: value for name, value in state.items() if not name.startswith(TRAINING_ONLY)}
    average = _has(state, AVERAGE) and not raw
    if average:
        network = published.averaged(state, network, beside=[name for name in state if name.startswith(LOSS)])
    config = published.autoencoder_config(network)
    converted = published.convert_autoencoder(network, len(config.block_out_channels))
    weights = Weights("autoencoder", {"autoencoder": plain(config)}, converted)
    weights.origin = f"a published first stage{', averaged weights' if average else ''}"
    sizes = config.block_out_channels, config.codes, config.latent_channels
    log.info("first stage: widths %s, %d codes of width %d", *sizes)
    _say_left_out([name for name in state if name.startswith(TRAINING_ONLY)])
    say_parts(weights)
    return weights


def _what_else(state: State) -> str:
    """What tensors are that are of no kind known here, by their names."""
    if _has(state, "encoder.down.") and _has(state, "quant_conv.") and not _has(state, "quantize."):
        return "an autoencoder with a Gaussian latent (KL); one with a codebook is needed"
    for start, kind in OTHERS.items():
        if _has(state, start):
            return kind
    return f"{len(state)} tensors of no network known here: {listed(list(state))}"


def _diffusion(state: State, unsaid: Unsaid, open_first_stage: Callable[[Path], Weights]) -> Weights:
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
    codec = _codec(state, unsaid, open_first_stage)
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


def _codec(state: State, unsaid: Unsaid, open_first_stage: Callable[[Path], Weights]) -> Weights:
    """The frozen first stage; latents are not scaled here, as the released code does not either."""
    scale = state.get("scale_factor")
    if scale is not None and scale.numel() != 1:
        raise UserError(f"scale_factor has the shape {tuple(scale.shape)}: one number is expected")
    if scale is not None and not abs(scale.item() - 1) <= 1e-6:
        raise UserError(f"latents are scaled by {scale.item():g}, and here they are never scaled")
    if _has(state, FIRST_STAGE):
        return _first_stage(below(state, FIRST_STAGE), raw=True)
    if unsaid.autoencoder is None:
        raise UserError("holds no first stage: give one by --autoencoder")
    found = open_first_stage(unsaid.autoencoder)
    return found.codec or found


def _contract(config: DiffTalkConfig, codec: Weights, unsaid: Unsaid) -> DataContract:
    """What its data were. Raises UserError where features, latents or frames are not of the network's sizes."""
    channels = config.conditioning.audio_channels
    expects = CHANNELS.get(unsaid.features, channels)
    if channels != expects:
        raise UserError(
            f"its speech encoder takes {channels} channels, {unsaid.features} has {expects}: give --features"
        )
    latent = codec.config["autoencoder"]["latent_channels"]
    expected = (3 * latent, latent)
    if (config.denoiser.in_channels, config.denoiser.out_channels) != expected:
        raise UserError(
            f"its denoiser takes {config.denoiser.in_channels} channels and gives {config.denoiser.out_channels}; "
            f"with this first stage {expected[0]} and {expected[1]} are expected"
        )
    factor = 2 ** (len(codec.config["autoencoder"]["block_out_channels"]) - 1)
    return DataContract(features=unsaid.features, mask=unsaid.mask, size=_size(factor, unsaid.size))


def _size(factor: int, given: int | None) -> int:
    """Side of the frames. factor: side of a frame over side of its latents."""
    size = given or LATENT_SIDE * factor
    if size not in SIZES or size % factor:
        fitting = [str(side) for side in SIZES if side % factor == 0]
        raise UserError(
            f"frames of {size} px and a first stage that makes them {factor} times smaller do not go together: "
            f"give a --size of {', '.join(fitting) or 'none that there is'}"
        )
    return size


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
    say_parts(weights)
    log.info(
        "not in the file, as released or as given: heads %s, features %s, mask %s, frames of %d px, landmarks times %g",
        *(network.heads, data.features, data.mask, data.size, config.conditioning.landmark_scale),
    )


def _say_left_out(names: list[str]) -> None:
    if names:
        modules = sorted({name.split(".")[0] for name in names})
        log.info("left out: %d tensors for training only, of %s", len(names), listed(modules))


def say_parts(weights: Weights) -> None:
    log.info("%s", ", ".join(f"{part} {number:,} parameters" for part, number in weights.parameters.items()))
