"""SyncNet: lips and speech as points of one space, near each other where they belong together.

Chung and Zisserman, "Out of time: automated lip sync in the wild". The default sizes and all names are those of the
published `syncnet_v2.model`; smaller ones train on a CPU.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

LIP_FRAMES = 5  # of a window, 0.2 s
MFCC_SHAPE = (13, 20)  # coefficients; steps of 10 ms, 0.2 s
CODE = 512  # what convolutions leave of a window, at the published width
SMALLEST_SIDE = 51  # below it nothing is left for the last convolution


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
            raise ValueError(f"syncnet.side {self.side}: expected {SMALLEST_SIDE} or more")
        if min(self.channels(64), self.embedding) < 1:
            raise ValueError(
                f"syncnet.width {self.width}, embedding {self.embedding}: expected channels in every layer"
            )

    def channels(self, published: int) -> int:
        """Channels of a layer that has so many in the published network."""
        return round(self.width * published)

    @property
    def last_kernel(self) -> int:
        """The side of what reaches the last lip convolution: 6 of 224."""
        side = (self.side - 7) // 2 + 1
        side = (side - 3) // 2 + 1
        side = (side + 2 - 5) // 2 + 1
        side = (side + 2 - 3) // 2 + 1
        return (side - 3) // 2 + 1


class SyncNet(nn.Module):
    """Two networks that share nothing. Whoever judges with them freezes them: batch normalisation over the judged clip
    would change the judge.

    The names are the published ones, so that a published file loads strictly.
    """

    def __init__(self, config: SyncNetConfig = SyncNetConfig()) -> None:
        super().__init__()
        self.config = config
        self.netcnnaud = _speech_layers(config)
        self.netfcaud = _head(config)
        self.netfclip = _head(config)
        self.netcnnlip = _lip_layers(config)

    def freeze(self) -> "SyncNet":
        """For judging: evaluation mode and no gradients of its own; gradients to its inputs flow."""
        return self.eval().requires_grad_(False)

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """mfcc: 13 coefficients in 20 steps of 10 ms, not normalised, (B, 1, 13, 20) -> (B, C)."""
        if mfcc.dim() != 4 or mfcc.shape[1:] != (1, *MFCC_SHAPE):
            raise ValueError(f"mfcc is {tuple(mfcc.shape)}: expected (B, 1, 13, 20)")
        return self._finish(self.netfcaud(rearrange(self.netcnnaud(mfcc), "b c 1 1 -> b c")))

    def embed_lips(self, lips: Tensor) -> Tensor:
        """lips: five frames, BGR, 0 to 255, (B, 3, 5, side, side) -> (B, C)."""
        side = self.config.side
        if lips.dim() != 5 or lips.shape[1:] != (3, LIP_FRAMES, side, side):
            raise ValueError(f"lips are {tuple(lips.shape)}: expected (B, 3, {LIP_FRAMES}, {side}, {side})")
        return rearrange(self._embed_windows(lips), "b 1 c -> b c")

    def embed_frames(self, frames: Tensor) -> Tensor:
        """All windows of five among consecutive frames: (T, 3, side, side) BGR, 0 to 255 -> (T - 4, C).

        Only the first layer looks along time, and it does not pad. So running over a stretch of frames gives what
        every window alone would give, without a copy of a frame for each window that it is in.
        """
        side = self.config.side
        if frames.dim() != 4 or frames.shape[1:] != (3, side, side) or len(frames) < LIP_FRAMES:
            expected = f"(T, 3, {side}, {side}) with T >= {LIP_FRAMES}"
            raise ValueError(f"frames are {tuple(frames.shape)}: expected {expected}")
        return rearrange(self._embed_windows(rearrange(frames, "t c h w -> 1 c t h w")), "1 t c -> t c")

    def embed_stretches(self, frames: Tensor) -> Tensor:
        """The same for several stretches at once: (B, T, 3, side, side) -> (B, T - 4, C)."""
        return self._embed_windows(rearrange(frames, "b t c h w -> b c t h w"))

    def _embed_windows(self, video: Tensor) -> Tensor:
        """(B, 3, T, side, side) -> (B, T - 4, C)."""
        codes = rearrange(self.netcnnlip(video), "b c t 1 1 -> (b t) c")
        return rearrange(self._finish(self.netfclip(codes)), "(b t) c -> b t c", b=len(video))

    def _finish(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding, dim=-1) if self.config.normalise else embedding


def _head(config: SyncNetConfig) -> nn.Sequential:
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
    """Embeddings of a clip's speech: windows of MFCC, (N, 13, 20) -> (N, C) on the CPU."""
    chunks = [rearrange(chunk, "n c steps -> n 1 c steps") for chunk in mfcc.split(batch)]
    return torch.cat([net.embed_audio(_place(chunk, net)).cpu() for chunk in chunks])


def _place(values: Tensor, net: SyncNet) -> Tensor:
    weight = next(net.parameters())
    return values.to(weight.device, weight.dtype)
