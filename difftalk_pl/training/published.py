"""Networks under the names of the published code: sizes from the shapes of tensors, tensors under our names.

diffusers converts the names. Its converters drop what they do not know; here that is an error.
"""

import re
from collections.abc import Mapping

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import AutoencoderConfig
from difftalk_pl.models.denoiser import DenoiserConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.weights import listed

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
HEAD_WIDTH = 32  # channels of an attention head, as released; no tensor's shape shows it
SCHEDULE_TOLERANCE = 1e-5  # relative
LEVEL_ATTENTION = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.attn\.(\d+)\.(norm|q|k|v|proj_out)\.(weight|bias)")
ATTENTION_NAMES = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def below(state: State, prefix: str) -> dict[str, Tensor]:
    """Return a module's tensors, named from there."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def averaged(state: State, own: State) -> dict[str, Tensor]:
    """Return the moving averages of the tensors `own`, stored without dots in their names; `own` if there are none."""
    if not any(name.startswith(AVERAGE) for name in state):
        return dict(own)
    return {name: state[AVERAGE + name.replace(".", "")] for name in own}


def autoencoder_config(state: State) -> AutoencoderConfig:
    """Read the sizes of a published VQ autoencoder (latent diffusion, taming); its norms have 32 groups."""
    levels = range(_count(state, "encoder.down.{}.block.0.conv1.weight"))
    attention = tuple(f"encoder.down.{level}.attn.0.q.weight" in state for level in levels)
    return AutoencoderConfig(
        block_out_channels=tuple(len(state[f"encoder.down.{level}.block.0.conv1.weight"]) for level in levels),
        layers_per_block=_count(state, "encoder.down.0.block.{}.conv1.weight"),
        latent_channels=len(state["encoder.conv_out.weight"]),
        codes=len(state[CODEBOOK]),
        mid_block_attention="encoder.mid.attn_1.q.weight" in state,
        in_channels=state["encoder.conv_in.weight"].shape[1],
        attention_levels=attention if any(attention) else (),
    )


def convert_autoencoder(state: State, levels: int) -> dict[str, Tensor]:
    """Rename the tensors of a published VQ autoencoder to those of `Autoencoder`."""
    attention = {name: found for name in state if (found := LEVEL_ATTENTION.fullmatch(name))}
    rest = {name: value for name, value in state.items() if name not in attention}
    blocks = {"down_block_types": range(levels), "up_block_types": range(levels)}
    converted = convert_ldm_vae_checkpoint(dict(rest), blocks)
    converted[CODEBOOK] = state[CODEBOOK]
    _refuse_leftovers(rest, converted)
    for name, found in attention.items():  # diffusers counts the decoder's levels from the deepest one
        side, level, block, layer, kind = found.groups()
        place = f"down_blocks.{level}" if side == "encoder.down" else f"up_blocks.{levels - 1 - int(level)}"
        name_there = f"{side[:7]}.{place}.attentions.{block}.{ATTENTION_NAMES[layer]}.{kind}"
        converted[name_there] = state[name].reshape(state[name].shape[:2])  # 1 x 1 convolutions are linear layers there
    return {f"vq.{name}": value for name, value in converted.items()}


def denoiser_config(state: State) -> DenoiserConfig:
    """Read the sizes of a published denoiser, named from `input_blocks`."""
    inputs = len({name.split(".")[1] for name in state if name.startswith("input_blocks.")})
    levels = 1 + sum(name.endswith(".0.op.weight") for name in state)
    layers = inputs // levels - 1
    firsts = [1 + level * (layers + 1) for level in range(levels)]  # a level: its layers, then one that halves the side
    widths = tuple(len(state[f"input_blocks.{first}.0.out_layers.3.weight"]) for first in firsts)
    return DenoiserConfig(
        block_out_channels=widths,
        layers_per_block=layers,
        attention_levels=tuple(f"input_blocks.{first}.1.norm.weight" in state for first in firsts),
        heads=tuple(max(width // HEAD_WIDTH, 1) for width in widths),
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=len(state["out.2.weight"]),
        context_width=state["middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1],
    )


def convert_denoiser(state: State, layers_per_block: int) -> dict[str, Tensor]:
    """Rename the tensors of a published denoiser, named from `input_blocks`, to those of `DiffTalk`."""
    published = {DENOISER + name: value for name, value in state.items()}
    converted = convert_ldm_unet_checkpoint(published, {"layers_per_block": layers_per_block})
    _refuse_leftovers(state, converted)
    return {f"denoiser.{name}": value for name, value in converted.items()}


def convert_conditioning(state: State) -> dict[str, Tensor]:
    """Rename the tensors of the encoders of speech and landmarks to those of `DiffTalk`."""
    return {new + name: value for old, new in ENCODERS.items() for name, value in below(state, old).items()}


def noise_schedule(state: State) -> NoiseSchedule:
    """Return the schedule of the checkpoint's betas, or the released one. Raises UserError for other schedules."""
    if "betas" not in state:
        return NoiseSchedule()
    betas = state["betas"].double()
    start, end = (float(f"{beta:.6g}") for beta in (betas[0].item(), betas[-1].item()))
    for kind in ("scaled_linear", "linear"):
        schedule = NoiseSchedule(len(betas), start, end, kind)  # type: ignore[arg-type]
        if torch.allclose(schedule.betas, betas, rtol=SCHEDULE_TOLERANCE, atol=0):
            return schedule
    raise UserError(f"its {len(betas)} betas from {start:g} to {end:g} are of no noise schedule that is built here")


def _refuse_leftovers(state: State, converted: State) -> None:
    """Raise UserError unless every tensor was used, which the same memory under a new name tells."""
    used = {value.data_ptr() for value in converted.values()}
    if left := [name for name, value in state.items() if value.data_ptr() not in used]:
        raise UserError(f"{len(left)} tensors have no place in this network: {listed(left)}")


def _count(state: State, pattern: str) -> int:
    """Count the numbers for which the pattern gives a name."""
    return sum(pattern.format(number) in state for number in range(32))
