"""SyncNet: lips and speech as embeddings in one space, close together where they are in sync.

Chung and Zisserman, "Out of time: automated lip sync in the wild". Default sizes and all names are those of the
published `syncnet_v2.model`; smaller ones train on a CPU.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from difftalk_pl.errors import UserError

LIP_FRAMES = 5  # of a window, 0.2 s
MFCC_SHAPE = (13, 20)  # coefficients; steps of 10 ms, 0.2 s
CODE = 512  # channels after the convolutions, at the published width
SMALLEST_SIDE = 51  # of frames; below it the last convolution has no input


@dataclass(frozen=True)
class SyncNetConfig:
    """Sizes; the defaults are the published ones.

    Args:
        side: of the frames in pixels; the kernel of the last lip convolution follows from it.
        width: of all layers, times the published channels.
        embedding: numbers of an embedding.
        normalise: embeddings of unit length. Not published: for networks that are trained here.
    """

    side: int = 224
    width: float = 1.0
    embedding: int = 1024
    normalise: bool = False

    def __post_init__(self) -> None:
        if self.side < SMALLEST_SIDE:
            raise UserError(f"syncnet.side is {self.side}: expected {SMALLEST_SIDE} or more")

    def channels(self, published: int) -> int:
        """Scale a layer's published number of channels."""
        return round(self.width * published)

    @property
    def last_kernel(self) -> int:
        """The side of the input of the last lip convolution, 6 for 224."""
        side = self.side
        for kernel, padding in ((7, 0), (3, 0), (5, 1), (3, 1), (3, 0)):  # all layers of stride 2
            side = (side + 2 * padding - kernel) // 2 + 1
        return side


class SyncNet(nn.Module):
    """Two separate networks under the published names, so that a published file loads strictly."""

    def __init__(self, config: SyncNetConfig = SyncNetConfig()) -> None:
        super().__init__()
        self.config = config
        self.netcnnaud = _speech_layers(config)
        self.netfcaud = _head(config)
        self.netfclip = _head(config)
        self.netcnnlip = _lip_layers(config)

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """Embed 13 coefficients in 20 steps of 10 ms, not normalised, (B, 1, 13, 20) -> (B, C)."""
        return self._finish(self.netfcaud(rearrange(self.netcnnaud(mfcc), "b c 1 1 -> b c")))

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Embed all windows of five consecutive frames, (T, 3, side, side) BGR, 0 to 255 -> (T - 4, C)."""
        return rearrange(self.embed_stretches(rearrange(frames, "t c h w -> 1 t c h w")), "1 t c -> t c")

    def embed_stretches(self, frames: Tensor) -> Tensor:
        """Embed the windows of several stretches, (B, T, 3, side, side) -> (B, T - 4, C)."""
        codes = self.netcnnlip(rearrange(frames, "b t c h w -> b c t h w"))
        embeddings = self._finish(self.netfclip(rearrange(codes, "b c t 1 1 -> (b t) c")))
        return rearrange(embeddings, "(b t) c -> b t c", b=len(frames))

    def _finish(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding, dim=-1) if self.config.normalise else embedding


def _head(config: SyncNetConfig) -> nn.Sequential:
    """(B, 512) -> (B, 1024)."""
    code = config.channels(CODE)
    return nn.Sequential(nn.Linear(code, code), nn.BatchNorm1d(code), nn.ReLU(), nn.Linear(code, config.embedding))


def _speech_layers(config: SyncNetConfig) -> nn.Sequential:
    """(B, 1, 13, 20) -> (B, 512, 1, 1). Layer 3 is published as a pooling over single cells: it does nothing."""
    first, second, third, middle, last = map(config.channels, (64, 192, 384, 256, CODE))

    def convolution(narrow: int, wide: int, kernel: tuple[int, int] = (3, 3), padding: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(narrow, wide, kernel, padding=padding), nn.BatchNorm2d(wide), nn.ReLU()]

    return nn.Sequential(
        *convolution(1, first),
        nn.Identity(),
        *convolution(first, second),
        nn.MaxPool2d(3, stride=(1, 2)),
        *convolution(second, third),
        *convolution(third, middle),
        *convolution(middle, middle),
        nn.MaxPool2d(3, stride=2),
        *convolution(middle, last, kernel=(5, 4), padding=0),
    )


def _lip_layers(config: SyncNetConfig) -> nn.Sequential:
    """(B, 3, T, side, side) -> (B, 512, T - 4, 1, 1)."""
    first, middle, last = map(config.channels, (96, 256, CODE))

    def convolution(narrow: int, wide: int, side: int, time: int = 1, stride: int = 1, pad: int = 1) -> list[nn.Module]:
        layer = nn.Conv3d(narrow, wide, (time, side, side), stride=(1, stride, stride), padding=(0, pad, pad))
        return [layer, nn.BatchNorm3d(wide), nn.ReLU()]

    def pooling(pad: int = 0) -> nn.Module:
        return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, pad, pad))

    return nn.Sequential(
        *convolution(3, first, side=7, time=LIP_FRAMES, stride=2, pad=0),
        pooling(),
        *convolution(first, middle, side=5, stride=2),
        pooling(pad=1),
        *convolution(middle, middle, side=3),
        *convolution(middle, middle, side=3),
        *convolution(middle, middle, side=3),
        pooling(),
        *convolution(middle, last, side=config.last_kernel, pad=0),
    )


@torch.no_grad()
def audio_stream(net: SyncNet, mfcc: Tensor, batch: int = 64) -> Tensor:
    """Embed a clip's speech in batches of MFCC windows, (N, 13, 20) -> (N, C) on the CPU."""
    weight = next(net.parameters())
    windows = rearrange(mfcc, "n c steps -> n 1 c steps").to(weight.device, weight.dtype)
    return torch.cat([net.embed_audio(chunk).cpu() for chunk in windows.split(batch)])
