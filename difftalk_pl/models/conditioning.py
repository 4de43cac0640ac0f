"""Conditions of the denoiser: speech and landmarks as cross-attention context, two latents as extra channels."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

SLOPE = 0.02  # of every LeakyReLU here, as released
CODE_WIDTH = 64  # D_A and D_L of the paper
AROUND = (4, 3)  # frames before and after that the smoothing sees, as released
LANDMARKS = 39
SCORED_WIDTH = 32  # channels of the audio code that the smoothing weights are computed from, as released


class Condition(NamedTuple):
    """context: tokens for cross-attention, (B, N, 128). concat: z_masked, then z_reference, (B, 6, h, w)."""

    context: Tensor
    concat: Tensor


@dataclass
class ConditioningConfig:
    """How audio and landmarks become a condition.

    Args:
        audio_channels: channels C of an audio feature step (DeepSpeech logits: 29).
        context: single joins audio and landmark code into one token, as released; tokens has one per audio step or
            frame and one per group of landmarks (models/tokens.py).
        audio_tokens: of `tokens`: one per step of 20 ms (30), or one per frame (8).
        smoothing: frames before and after the target whose audio is seen.
        landmark_scale: factor on landmarks in fractions of the side; released: 256. Small models prefer about 1.
        landmark_centre: subtracted from the fractions before scaling; 0 as released.
    """

    audio_channels: int = 29
    context: Literal["single", "tokens"] = "single"
    audio_tokens: Literal["steps", "frames"] = "steps"
    smoothing: tuple[int, int] = AROUND
    landmark_scale: float = 256.0
    landmark_centre: float = 0.0

    @property
    def frames(self) -> int:
        """Number of frames whose audio is seen, the target included."""
        return sum(self.smoothing) + 1


def scaled_landmarks(landmarks: Tensor, config: ConditioningConfig) -> Tensor:
    """Scale landmarks from fractions of the side to the networks' range."""
    return (landmarks - config.landmark_centre) * config.landmark_scale


class AudioEncoder(nn.Module):
    """One window of 16 feature steps to one code, (N, 16, C) -> (N, 64). AD-NeRF's AudioNet, as released."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for narrow, wide in pairwise((channels, 32, 32, 64, CODE_WIDTH)):  # 16 -> 8 -> 4 -> 2 -> 1 steps
            convolutions += [nn.Conv1d(narrow, wide, 3, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        self.encoder_conv = nn.Sequential(*convolutions)
        self.encoder_fc1 = nn.Sequential(
            nn.Linear(CODE_WIDTH, CODE_WIDTH), nn.LeakyReLU(SLOPE), nn.Linear(CODE_WIDTH, CODE_WIDTH)
        )

    def forward(self, windows: Tensor) -> Tensor:
        code = self.encoder_conv(rearrange(windows, "n steps c -> n c steps"))
        return self.encoder_fc1(rearrange(code, "n c 1 -> n c"))


class AudioSmoothing(nn.Module):
    """Learned average over neighbouring frames, (B, 8, 64) -> (B, 64). Paper, section 3.2."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for wide, narrow in pairwise((SCORED_WIDTH, 16, 8, 4, 2, 1)):
            convolutions += [nn.Conv1d(wide, narrow, 3, padding=1), nn.LeakyReLU(SLOPE)]
        self.attentionConvNet = nn.Sequential(*convolutions)
        self.attentionNet = nn.Sequential(nn.Linear(frames, frames), nn.Softmax(dim=1))

    def forward(self, codes: Tensor) -> Tensor:
        scores = self.attentionConvNet(rearrange(codes[..., :SCORED_WIDTH], "b frames c -> b c frames"))
        weights = self.attentionNet(rearrange(scores, "b 1 frames -> b frames"))
        return torch.einsum("bf,bfc->bc", weights, codes)


class LandmarkEncoder(nn.Module):
    """Landmarks without the mouth to one code, (B, 39, 2) -> (B, 64), as released."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_fc1 = nn.Sequential(
            nn.Linear(2 * LANDMARKS, 128),
            nn.LeakyReLU(SLOPE),
            nn.Linear(128, CODE_WIDTH),
            nn.LeakyReLU(SLOPE),
            nn.Linear(CODE_WIDTH, CODE_WIDTH),
        )

    def forward(self, landmarks: Tensor) -> Tensor:
        return self.encoder_fc1(rearrange(landmarks, "b points xy -> b (points xy)"))


class Conditioning(nn.Module):
    """E_A and E_L of the paper as one token, and the two latents. Trained together with the denoiser."""

    context_width = 2 * CODE_WIDTH

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioEncoder(config.audio_channels)
        self.smoothing = AudioSmoothing(config.frames)
        self.landmarks = LandmarkEncoder()

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Encode windows of features around 8 frames, (B, 8, 16, C) -> (B, 64)."""
        codes = self.audio(rearrange(audio, "b frames steps c -> (b frames) steps c"))
        return self.smoothing(rearrange(codes, "(b frames) c -> b frames c", frames=audio.shape[1]))

    def encode_landmarks(self, landmarks: Tensor) -> Tensor:
        """Encode landmarks in fractions of the side, (B, 39, 2) -> (B, 64)."""
        return self.landmarks(scaled_landmarks(landmarks, self.config))

    def code(self, audio: Tensor, landmarks: Tensor) -> Tensor:
        """Return [a; l] of the paper, (B, 1, 128)."""
        code = torch.cat([self.encode_audio(audio), self.encode_landmarks(landmarks)], dim=1)
        return rearrange(code, "b c -> b 1 c")

    def forward(self, audio: Tensor, landmarks: Tensor, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """Encode audio (B, 8, 16, C) and landmarks (B, 39, 2); both latents are (B, 3, h, w)."""
        return Condition(self.code(audio, landmarks), torch.cat([z_masked, z_reference], dim=1))
