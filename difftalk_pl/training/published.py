"""Networks under the names of the published code: sizes from the shapes of the tensors, tensors under our names.

The converters of diffusers do the renaming. They pass over whatever they do not know; here that is an error.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from einops import rearrange
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import AutoencoderConfig
from difftalk_pl.models.conditioning import ConditioningConfig
from difftalk_pl.models.denoiser import DenoiserConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.safe_unpickling import listed

State = Mapping[str, Tensor]

DENOISER = "model.diffusion_model."
AVERAGE = "model_ema."
FIRST_STAGE = "first_stage_model."
CODEBOOK = "quantize.embedding.weight"
ENCODERS = {  # published module -> module of DiffTalk
    "cond_stage_model_for_audio.": "conditioning.audio.",
    "cond_stage_model_for_audio_smooth.": "conditioning.smoothing.",
    "cond_stage_model_for_ldm.": "conditioning.landmarks.",
}
COUNTERS = {AVERAGE + "decay", AVERAGE + "num_updates"}  # of the averaging
BUFFERS = {  # of the noise schedule, and the scale of latents
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    *("lvlb_weights", "logvar", "scale_factor"),
}
HEAD_WIDTH = 32  # as released; no tensor's shape shows it
SCHEDULE_TOLERANCE = 1e-5  # relative; more where the buffers are stored as 16 bit floats
LEVEL_ATTENTION = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.attn\.(\d+)\.(norm|q|k|v|proj_out)\.(weight|bias)")
ATTENTION_NAMES = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def below(state: State, prefix: str) -> dict[str, Tensor]:
    """What lies below a module, named from there."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def averaged(state: State, own: State, beside: Iterable[str] = ()) -> dict[str, Tensor]:
    """The moving averages of the tensors `own`, which the published code keeps under their names without dots.

    Args:
        own: named from the module that was averaged.
        beside: names of what else may be averaged, and is not needed.

    Raises:
        UserError: some have no average, or there are averages of nothing.
    """
    names = {name: _average(name) for name in own}
    if missing := [name for name, average in names.items() if average not in state]:
        raise UserError(f"{len(missing)} weights have no average: {listed(missing)}; --raw takes the last ones")
    known = {*names.values(), *map(_average, beside), *COUNTERS}
    if left := [name for name in state if name.startswith(AVERAGE) and name not in known]:
        raise UserError(f"{len(left)} averages of weights that are not there: {listed(left)}; --raw takes none")
    return {name: state[average] for name, average in names.items()}


def _average(name: str) -> str:
    return AVERAGE + name.replace(".", "")


def autoencoder_config(state: State) -> AutoencoderConfig:
    """Sizes of a published VQ autoencoder (latent diffusion, taming); its norms have 32 groups, as all there have."""
    levels = range(_count(state, "encoder.down.{}.block.0.conv1.weight"))
    codes, code_width = (_size(state, CODEBOOK, axis) for axis in (0, 1))
    latent_channels = _size(state, "encoder.conv_out.weight", 0)
    if code_width != latent_channels:
        raise UserError(f"codes of width {code_width} for latents of {latent_channels} channels: not built here")
    attention = tuple(f"encoder.down.{level}.attn.0.q.weight" in state for level in levels)
    return AutoencoderConfig(
        block_out_channels=tuple(_size(state, f"encoder.down.{level}.block.0.conv1.weight", 0) for level in levels),
        layers_per_block=_count(state, "encoder.down.0.block.{}.conv1.weight"),
        latent_channels=latent_channels,
        codes=codes,
        mid_block_attention="encoder.mid.attn_1.q.weight" in state,
        in_channels=_size(state, "encoder.conv_in.weight", 1),
        attention_levels=attention if any(attention) else (),
    )


def convert_autoencoder(state: State, levels: int) -> dict[str, Tensor]:
    """Tensors of a published VQ autoencoder under the names of `Autoencoder`."""
    attention = {name: value for name, value in state.items() if LEVEL_ATTENTION.fullmatch(name)}
    rest = {name: value for name, value in state.items() if name not in attention}
    blocks = {"down_block_types": range(levels), "up_block_types": range(levels)}
    converted = _convert(lambda: convert_ldm_vae_checkpoint(dict(rest), blocks))
    converted[CODEBOOK] = state[CODEBOOK]
    _refuse_leftovers(rest, converted)
    converted |= {_level_attention_name(name, levels): _as_linear(value) for name, value in attention.items()}
    return {f"vq.{name}": value for name, value in converted.items()}


def _level_attention_name(name: str, levels: int) -> str:
    """diffusers counts the decoder's levels from the deepest, the published code from the widest picture."""
    found = LEVEL_ATTENTION.fullmatch(name)
    assert found is not None
    side, level, block, layer, kind = found.groups()
    place = f"encoder.down_blocks.{level}" if side == "encoder.down" else f"decoder.up_blocks.{levels - 1 - int(level)}"
    return f"{place}.attentions.{block}.{ATTENTION_NAMES[layer]}.{kind}"


def _as_linear(weight: Tensor) -> Tensor:
    """A 1 x 1 convolution as the linear layer that it is; another shape stays, to be refused by its name."""
    return rearrange(weight, "o i 1 1 -> o i") if weight.shape[2:] == (1, 1) else weight


def denoiser_config(state: State, head_width: int = HEAD_WIDTH) -> DenoiserConfig:
    """Sizes of a published denoiser, named from `input_blocks`.

    head_width: channels of an attention head, 1 or more; any divisor loads, and a wrong one computes something else.
    """
    inputs = len({name.split(".")[1] for name in state if name.startswith("input_blocks.")})
    levels = 1 + sum(name.endswith(".0.op.weight") for name in state)
    layers = inputs // levels - 1
    if layers < 1 or inputs % levels:
        raise UserError(f"incomplete: {inputs} input blocks are no whole number of them for each of {levels} levels")
    firsts = [1 + level * (layers + 1) for level in range(levels)]  # a level: its layers, then one that halves the side
    widths = tuple(_size(state, f"input_blocks.{first}.0.out_layers.3.weight", 0) for first in firsts)
    attention = tuple(f"input_blocks.{first}.1.norm.weight" in state for first in firsts)
    return DenoiserConfig(
        block_out_channels=widths,
        layers_per_block=layers,
        attention_levels=attention,
        heads=tuple(map(lambda width, there: _heads(width, there, head_width), widths, (*attention[:-1], True))),
        in_channels=_size(state, "input_blocks.0.0.weight", 1),
        out_channels=_size(state, "out.2.weight", 0),
        context_width=_size(state, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1),
    )


def _heads(width: int, attends: bool, head_width: int) -> int:
    """Number of heads of a level; the middle attends in any case, with those of the last level."""
    if width % head_width == 0:
        return width // head_width
    if attends:
        raise UserError(f"a level of {width} channels has no heads of width {head_width}: give another --head-width")
    return 1


def convert_denoiser(state: State, layers_per_block: int) -> dict[str, Tensor]:
    """Tensors of a published denoiser, named from `input_blocks`, under the names of `DiffTalk`."""
    published = {DENOISER + name: value for name, value in state.items()}
    converted = _convert(lambda: convert_ldm_unet_checkpoint(published, {"layers_per_block": layers_per_block}))
    _refuse_leftovers(state, converted)
    return {f"denoiser.{name}": value for name, value in converted.items()}


def conditioning_config(state: State) -> ConditioningConfig:
    """Sizes of the published encoders of speech and landmarks; landmarks are pixels of a 256 px frame, as released."""
    channels = _size(state, "cond_stage_model_for_audio.encoder_conv.0.weight", 1)
    return ConditioningConfig(audio_channels=channels, context="single")


def convert_conditioning(state: State) -> dict[str, Tensor]:
    """Tensors of the encoders of speech and landmarks under the names of `DiffTalk`."""
    return {new + name: value for old, new in ENCODERS.items() for name, value in below(state, old).items()}


def noise_schedule(state: State) -> NoiseSchedule:
    """The schedule whose betas the checkpoint carries; the released one where it carries none, or that one rounded.

    Raises UserError where they belong to no schedule that is built here.
    """
    if "betas" not in state:
        return NoiseSchedule()
    betas = _row(state, "betas")
    left = _row(state, "alphas_cumprod") if "alphas_cumprod" in state else None
    start, end = (float(f"{beta:.6g}") for beta in (betas[0].item(), betas[-1].item()))
    released = NoiseSchedule()
    if released.steps == len(betas) and _agrees(released, betas, left):
        return released
    if 0 < start <= end < 1:
        for kind in ("scaled_linear", "linear"):
            schedule = NoiseSchedule(len(betas), start, end, kind)  # type: ignore[arg-type]
            if _agrees(schedule, betas, left):
                return schedule
    raise UserError(
        f"its {len(betas)} betas, from {start:g} to {end:g}, are neither a line nor the square of one, "
        "and no other noise schedule is built here"
    )


def _row(state: State, name: str) -> Tensor:
    """A buffer of the schedule, (steps,)."""
    value = state[name]
    if value.ndim != 1 or len(value) == 0 or not value.is_floating_point():
        raise UserError(f"{name} has the shape {tuple(value.shape)} and {value.dtype}: a row of floats is expected")
    return value


def _agrees(schedule: NoiseSchedule, betas: Tensor, left: Tensor | None) -> bool:
    """Whether these are the schedule's numbers, as well as their floats can tell.

    What is left of the signal is a product over all steps, so that there the rounding of the first and last beta, which
    a schedule may have been read off, adds up.
    """
    adds_up = 1 + (schedule.betas / (1 - schedule.betas)).sum().item()
    return _close(schedule.betas, betas, betas.dtype) and (
        left is None or _close(schedule.alphas_cumprod, left, betas.dtype, adds_up)
    )


def _close(ours: Tensor, theirs: Tensor, rounded: torch.dtype, times: float = 1.0) -> bool:
    """rounded: to which floats, where the numbers were read off; times: by how much that may have grown."""
    spacing = max(torch.finfo(kind).eps for kind in (rounded, theirs.dtype))
    relative = max(SCHEDULE_TOLERANCE, spacing * times)
    smallest = torch.finfo(theirs.dtype).smallest_normal * torch.finfo(theirs.dtype).eps
    return ours.shape == theirs.shape and torch.allclose(ours, theirs.double(), rtol=relative, atol=smallest)


def _convert(convert: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return {name: value for name, value in convert().items() if value is not None}
    except KeyError as error:
        raise UserError(f"incomplete: {error.args[0]} is missing") from error
    except (IndexError, ValueError, RuntimeError) as error:
        raise UserError(f"its tensors are not named or shaped as those of this network ({error})") from error


def _refuse_leftovers(state: State, converted: State) -> None:
    """Every tensor must have gone somewhere; the same memory under a new name tells that it did."""
    used = {value.data_ptr() for value in converted.values()}
    if left := [name for name, value in state.items() if value.data_ptr() not in used]:
        raise UserError(f"{len(left)} tensors have no place in this network: {listed(left)}")


def _count(state: State, pattern: str) -> int:
    """How many consecutive numbers, from 0, complete the pattern to a name that is there. There must be one."""
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number or _size(state, pattern.format(0), 0)


def _size(state: State, name: str, axis: int) -> int:
    if name not in state:
        raise UserError(f"incomplete: {name} is missing")
    if state[name].ndim <= axis:
        raise UserError(f"{name} has the shape {tuple(state[name].shape)}: not that of this network")
    return state[name].shape[axis]
