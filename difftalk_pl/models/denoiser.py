"""The network that predicts the noise: UNet2DConditionModel of diffusers in the sizes of the released model."""

from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition


@dataclass
class DenoiserConfig:
    """Sizes of the denoiser; one entry a level, each level after the first at half the side.

    attention_levels: which levels attend to themselves and to the context; the middle always does.
    heads: number of attention heads per level, also where a level has no attention.
    in_channels: z_t, z_masked and z_reference on top of each other.
    """

    block_out_channels: tuple[int, ...] = (256, 512, 768, 1024)
    layers_per_block: int = 2
    attention_levels: tuple[bool, ...] = (False, True, True, True)
    heads: tuple[int, ...] = (8, 16, 24, 32)
    in_channels: int = 9
    out_channels: int = 3
    context_width: int = 128
    norm_num_groups: int = 32

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name in ("attention_levels", "heads"):
            if len(getattr(self, name)) != levels:
                raise UserError(
                    f"denoiser.{name} is {getattr(self, name)}: expected {levels} entries, as block_out_channels has"
                )
        for width, heads in zip(self.block_out_channels, self.heads, strict=True):
            if width % heads or width % self.norm_num_groups:
                raise UserError(
                    f"denoiser: a level of {width} channels cannot be split into {heads} heads and "
                    f"{self.norm_num_groups} groups: choose divisors of {width}"
                )


def build_denoiser(config: DenoiserConfig) -> UNet2DConditionModel:
    """Everything not set here is the default of diffusers, which is what the released network needs."""
    with_attention = config.attention_levels
    return UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        down_block_types=tuple("CrossAttnDownBlock2D" if there else "DownBlock2D" for there in with_attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if there else "UpBlock2D" for there in reversed(with_attention)),
        cross_attention_dim=config.context_width,
        attention_head_dim=tuple(config.heads),  # diffusers' name; for this class it is the number of heads
        norm_num_groups=config.norm_num_groups,
    )


def predict_noise(unet: UNet2DConditionModel, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Noise in z_t (B, 3, h, w) at the timesteps t, (B,) or a scalar; h and w divisible by 2^(levels - 1)."""
    stacked = torch.cat([z_t, condition.concat], dim=1)
    return unet(stacked, t, encoder_hidden_states=condition.context).sample
