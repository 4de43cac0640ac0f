"""Stage 2 as one network: all that learns there, that EMA averages, that checkpoints hold and inference loads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition, ConditioningConfig
from difftalk_pl.models.configuration import from_dict
from difftalk_pl.models.denoiser import DenoiserConfig, build_denoiser, predict_noise
from difftalk_pl.models.tokens import build_conditioning


@dataclass
class DiffTalkConfig:
    """The defaults are the released model: 530.15 M parameters in the denoiser."""

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    conditioning: ConditioningConfig = field(default_factory=ConditioningConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DiffTalkConfig":
        return from_dict(cls, values)


class DiffTalk(nn.Module):
    """Noise prediction from a noisy latent and a condition."""

    def __init__(self, config: DiffTalkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiffTalkConfig()
        self.conditioning = build_conditioning(config.conditioning)
        if config.denoiser.context_width != self.conditioning.context_width:
            raise UserError(
                f"denoiser.context_width is {config.denoiser.context_width}: "
                f"the conditioning makes tokens of {self.conditioning.context_width}"
            )
        self.denoiser = build_denoiser(config.denoiser)

    def condition(self, audio: Tensor, landmarks: Tensor, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """Once per window: it does not depend on the timestep, so a sampler need not compute it anew every step."""
        return self.conditioning(audio, landmarks, z_masked, z_reference)

    def forward(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """z_t (B, 3, h, w) at the timesteps t (B,) -> the noise in it, like z_t."""
        return predict_noise(self.denoiser, z_t, t, condition)
