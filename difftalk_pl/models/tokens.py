"""`context: tokens`: speech and landmarks as a sequence that the denoiser can attend to.

With the single token of the released model the softmax runs over one key and is 1, so that the queries, the keys and
their norm cannot matter. Not in the paper.

Attention that starts even over many tokens blurs them, and has to learn where to look before it can learn what to do:
so every token carries the joint code of the single one, and adds its own from zero. At its start the model is that with
a single token.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from difftalk_pl.models.conditioning import (
    CODE_WIDTH,
    SLOPE,
    AudioEncoder,
    Condition,
    Conditioning,
    ConditioningConfig,
    scaled_landmarks,
)

TOKEN_WIDTH = 2 * CODE_WIDTH
WINDOW = 16  # steps of a frame's window; the next frame's begins 2 steps later
POSITION_DEVIATION = 0.02  # of the learned positions at the start
# Places among the 39 landmarks without the mouth: both ends of the jaw, brows, nose, eyes.
GROUPS = {
    "right jaw": range(0, 4),
    "left jaw": range(4, 8),
    "right brow": range(8, 13),
    "left brow": range(13, 18),
    "nose": range(18, 27),
    "right eye": range(27, 33),
    "left eye": range(33, 39),
}


def distinct_steps(audio: Tensor, own: int) -> Tensor:
    """Windows of neighbouring frames overlap by 14 of 16 steps: every step once, in time's order.

    The target's window, in slot `own`, is whole; its neighbours add the two steps that only they reach.
    (B, F, 16, C) -> (B, 2F + 14, C), which is 30 steps for the usual 8 frames.
    """
    before, whole, after = audio[:, :own, :2], audio[:, own], audio[:, own + 1 :, -2:]
    outside = [rearrange(part, "b frames steps c -> b (frames steps) c") for part in (before, after)]
    return torch.cat([outside[0], whole, outside[1]], dim=1)


class StepTokens(nn.Module):
    """A token for each step: (B, 8, 16, C) -> (B, 30, 128)."""

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.own = config.smoothing[0]
        self.convolutions = nn.Sequential(
            nn.Conv1d(config.audio_channels, TOKEN_WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv1d(TOKEN_WIDTH, TOKEN_WIDTH, 3, padding=1),
        )
        self.position = nn.Parameter(POSITION_DEVIATION * torch.randn(2 * (config.frames - 1) + WINDOW, TOKEN_WIDTH))

    def forward(self, audio: Tensor) -> Tensor:
        steps = rearrange(distinct_steps(audio, self.own), "b steps c -> b c steps")
        return rearrange(self.convolutions(steps), "b c steps -> b steps c") + self.position


class FrameTokens(nn.Module):
    """A token for each frame, coded by the released encoder: (B, 8, 16, C) -> (B, 8, 128)."""

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.encoder = AudioEncoder(config.audio_channels)
        self.widen = nn.Linear(CODE_WIDTH, TOKEN_WIDTH)
        self.position = nn.Parameter(POSITION_DEVIATION * torch.randn(config.frames, TOKEN_WIDTH))

    def forward(self, audio: Tensor) -> Tensor:
        codes = self.encoder(rearrange(audio, "b frames steps c -> (b frames) steps c"))
        return self.widen(rearrange(codes, "(b frames) c -> b frames c", frames=audio.shape[1])) + self.position


class LandmarkTokens(nn.Module):
    """A token for each group of landmarks: (B, 39, 2) -> (B, 7, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * len(group), TOKEN_WIDTH), nn.LeakyReLU(SLOPE), nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
            )
            for group in GROUPS.values()
        )
        self.position = nn.Parameter(POSITION_DEVIATION * torch.randn(len(GROUPS), TOKEN_WIDTH))

    def forward(self, landmarks: Tensor) -> Tensor:
        groups = [landmarks[:, list(group)] for group in GROUPS.values()]
        codes = [
            encoder(rearrange(points, "b points xy -> b (points xy)")) for encoder, points in zip(self.encoders, groups)
        ]
        return torch.stack(codes, dim=1) + self.position


class TokenConditioning(nn.Module):
    """As `Conditioning`, with one token per audio step (or frame) and one per group of landmarks.

    With `config.joint`, token = code of the single token + what is the token's own, which starts at zero.
    """

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.config = config
        kinds = {"steps": StepTokens, "frames": FrameTokens}
        if config.audio_tokens not in kinds:
            raise ValueError(f"audio_tokens is {config.audio_tokens!r}: expected one of {', '.join(kinds)}")
        self.audio = kinds[config.audio_tokens](config)
        self.landmarks = LandmarkTokens()
        self.norm = nn.LayerNorm(TOKEN_WIDTH)  # the denoiser does not normalise its context
        self.single = Conditioning(config) if config.joint else None
        if config.joint:
            self.own = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
            nn.init.zeros_(self.own.weight)
            nn.init.zeros_(self.own.bias)

    @property
    def context_width(self) -> int:
        return TOKEN_WIDTH

    def forward(self, audio: Tensor, landmarks: Tensor, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """audio (B, 8, 16, C), landmarks (B, 39, 2), both latents (B, 3, h, w); context (B, 37 or 15, 128)."""
        tokens = torch.cat([self.audio(audio), self.landmarks(scaled_landmarks(landmarks, self.config))], dim=1)
        context = self.norm(tokens)
        if self.single is not None:
            context = self.single.code(audio, landmarks) + self.own(context)
        return Condition(context, torch.cat([z_masked, z_reference], dim=1))


def build_conditioning(config: ConditioningConfig) -> nn.Module:
    """The conditioning that `config.context` names. Raises ValueError for another name."""
    kinds = {"single": Conditioning, "tokens": TokenConditioning}
    if config.context not in kinds:
        raise ValueError(f"context is {config.context!r}: expected one of {', '.join(kinds)}")
    return kinds[config.context](config)
