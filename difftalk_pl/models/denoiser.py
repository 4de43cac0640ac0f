"""The conditional denoiser: all that stage 2 trains, averages, stores and loads."""

from dataclasses import dataclass, field

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition, Conditioning, ConditioningConfig
from difftalk_pl.models.tokens import TokenConditioning


@dataclass
class DenoiserConfig:
    """Sizes of the UNet, one entry a level; each level after the first has half the side.

    Args:
        attention_levels: levels with self- and cross-attention; the middle block always has both.
        heads: attention heads per level, also where a level has no attention.
        in_channels: z_t, z_masked and z_reference.
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
        if len(self.attention_levels) != levels or len(self.heads) != levels:
            raise UserError(f"denoiser: attention_levels and heads need {levels} entries, as block_out_channels has")
        for width, heads in zip(self.block_out_channels, self.heads):
            if width % heads:  # diffusers would build another network
                raise UserError(f"denoiser: a level of {width} channels cannot be split into {heads} heads")


@dataclass
class DiffTalkConfig:
    """The defaults are the released model, with 530.15 M parameters in the denoiser."""

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    conditioning: ConditioningConfig = field(default_factory=ConditioningConfig)


def build_denoiser(config: DenoiserConfig) -> UNet2DConditionModel:
    """Build the UNet. Everything not set here is diffusers' default, which the released network needs."""
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


class DiffTalk(nn.Module):
    """Noise prediction from a noisy latent and a condition."""

    def __init__(self, config: DiffTalkConfig) -> None:
        super().__init__()
        self.config = config
        kind = TokenConditioning if config.conditioning.context == "tokens" else Conditioning
        self.conditioning = kind(config.conditioning)
        self.denoiser = build_denoiser(config.denoiser)

    def condition(self, audio: Tensor, landmarks: Tensor, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """Encode the inputs once per window; see `Conditioning.forward`. The condition is the same at all timesteps."""
        return self.conditioning(audio, landmarks, z_masked, z_reference)

    def forward(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the noise in z_t (B, 3, h, w) at timesteps t (B,); h and w divisible by 2^(levels - 1)."""
        stacked = torch.cat([z_t, condition.concat], dim=1)
        return self.denoiser(stacked, t, encoder_hidden_states=condition.context).sample
