"""Conditioning with several tokens (`context: tokens`). Not in the paper.

With the released model's single token the softmax has one key, so that queries, keys and their norm have no effect.
Here every token adds its own part, which starts at zero, to the code of the single token.
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
GROUPS = {  # places among the 39 landmarks without the mouth
    "right jaw": range(0, 4),
    "left jaw": range(4, 8),
    "right brow": range(8, 13),
    "left brow": range(13, 18),
    "nose": range(18, 27),
    "right eye": range(27, 33),
    "left eye": range(33, 39),
}


def distinct_steps(audio: Tensor, own: int) -> Tensor:
    """Return every step once, in order of time, (B, F, 16, C) -> (B, 2F + 14, C).

    The target's window, in slot `own`, is taken whole; its neighbours add the two steps that only they have.
    """
    before, whole, after = audio[:, :own, :2], audio[:, own], audio[:, own + 1 :, -2:]
    outside = [rearrange(part, "b frames steps c -> b (frames steps) c") for part in (before, after)]
    return torch.cat([outside[0], whole, outside[1]], dim=1)


class StepTokens(nn.Module):
    """One token per audio step, (B, 8, 16, C) -> (B, 30, 128)."""

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.own = config.smoothing[0]
        self.convolutions = nn.Sequential(
            nn.Conv1d(config.audio_channels, TOKEN_WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv1d(TOKEN_WIDTH, TOKEN_WIDTH, 3, padding=1),
        )
        self.position = _positions(2 * (config.frames - 1) + WINDOW)

    def forward(self, audio: Tensor) -> Tensor:
        steps = rearrange(distinct_steps(audio, self.own), "b steps c -> b c steps")
        return rearrange(self.convolutions(steps), "b c steps -> b steps c") + self.position


class FrameTokens(nn.Module):
    """One token per frame, coded by the released encoder, (B, 8, 16, C) -> (B, 8, 128)."""

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.encoder = AudioEncoder(config.audio_channels)
        self.widen = nn.Linear(CODE_WIDTH, TOKEN_WIDTH)
        self.position = _positions(config.frames)

    def forward(self, audio: Tensor) -> Tensor:
        codes = self.encoder(rearrange(audio, "b frames steps c -> (b frames) steps c"))
        return self.widen(rearrange(codes, "(b frames) c -> b frames c", frames=audio.shape[1])) + self.position


class LandmarkTokens(nn.Module):
    """One token per group of landmarks, (B, 39, 2) -> (B, 7, 128)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [2 * len(group) for group in GROUPS.values()]
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.Linear(size, TOKEN_WIDTH), nn.LeakyReLU(SLOPE), nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH))
            for size in sizes
        )
        self.position = _positions(len(GROUPS))

    def forward(self, landmarks: Tensor) -> Tensor:
        groups = [rearrange(landmarks[:, list(group)], "b points xy -> b (points xy)") for group in GROUPS.values()]
        return torch.stack([encoder(group) for encoder, group in zip(self.encoders, groups)], dim=1) + self.position


def _positions(count: int) -> nn.Parameter:
    return nn.Parameter(POSITION_DEVIATION * torch.randn(count, TOKEN_WIDTH))


class TokenConditioning(nn.Module):
    """Like `Conditioning`, with one token per audio step or frame and one per group of landmarks."""

    context_width = TOKEN_WIDTH

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = {"steps": StepTokens, "frames": FrameTokens}[config.audio_tokens](config)
        self.landmarks = LandmarkTokens()
        self.norm = nn.LayerNorm(TOKEN_WIDTH)  # the denoiser does not normalise its context
        self.single = Conditioning(config)
        self.own = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.own.bias)

    def forward(self, audio: Tensor, landmarks: Tensor, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """Encode audio (B, 8, 16, C) and landmarks (B, 39, 2) to a context (B, 37 or 15, 128); latents (B, 3, h, w)."""
        tokens = torch.cat([self.audio(audio), self.landmarks(scaled_landmarks(landmarks, self.config))], dim=1)
        context = self.single.code(audio, landmarks) + self.own(self.norm(tokens))
        return Condition(context, torch.cat([z_masked, z_reference], dim=1))
