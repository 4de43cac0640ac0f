"""The published SyncNet: lips and speech as points of one space, near each other where they belong together.

Chung and Zisserman, "Out of time: automated lip sync in the wild"; sizes and names of the published `syncnet_v2.model`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from einops import rearrange
from torch import Tensor, nn

LIP_FRAMES = 5  # of a window, 0.2 s
LIP_SIDE = 224
MFCC_SHAPE = (13, 20)  # coefficients; steps of 10 ms, 0.2 s
EMBEDDING = 1024
CODE = 512  # what convolutions leave of a window


class SyncNet(nn.Module):
    """Two networks that share nothing. They judge and do not learn: always in evaluation mode, without gradients of
    their own; gradients to their inputs flow.

    The names are the published ones, so that a published file loads strictly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = _speech_layers()
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = _lip_layers()
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "SyncNet":
        """Stays in evaluation mode: batch normalisation over the judged clip would change the judge."""
        return super().train(False)

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """mfcc: 13 coefficients in 20 steps of 10 ms, not normalised, (B, 1, 13, 20) -> (B, 1024)."""
        if mfcc.dim() != 4 or mfcc.shape[1:] != (1, *MFCC_SHAPE):
            raise ValueError(f"mfcc is {tuple(mfcc.shape)}: expected (B, 1, 13, 20)")
        return self.netfcaud(rearrange(self.netcnnaud(mfcc), "b c 1 1 -> b c"))

    def embed_lips(self, lips: Tensor) -> Tensor:
        """lips: five frames, BGR, 0 to 255, (B, 3, 5, 224, 224) -> (B, 1024)."""
        if lips.dim() != 5 or lips.shape[1:] != (3, LIP_FRAMES, LIP_SIDE, LIP_SIDE):
            raise ValueError(f"lips are {tuple(lips.shape)}: expected (B, 3, 5, 224, 224)")
        return self._embed_windows(lips)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """All windows of five among consecutive frames: (T, 3, 224, 224) BGR, 0 to 255 -> (T - 4, 1024).

        Only the first layer looks along time, and it does not pad. So running over a stretch of frames gives what
        every window alone would give, without a copy of a frame for each window that it is in.
        """
        if frames.dim() != 4 or frames.shape[1:] != (3, LIP_SIDE, LIP_SIDE) or len(frames) < LIP_FRAMES:
            raise ValueError(f"frames are {tuple(frames.shape)}: expected (T, 3, 224, 224) with T >= {LIP_FRAMES}")
        return self._embed_windows(rearrange(frames, "t c h w -> 1 c t h w"))

    def _embed_windows(self, video: Tensor) -> Tensor:
        return self.netfclip(rearrange(self.netcnnlip(video), "b c t 1 1 -> (b t) c"))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(CODE, CODE), nn.BatchNorm1d(CODE), nn.ReLU(), nn.Linear(CODE, EMBEDDING))


def _speech_layers() -> nn.Sequential:
    """(B, 1, 13, 20) -> (B, 512, 1, 1). Layer 3 is published as a pooling over single cells: it does nothing."""

    def convolution(narrow: int, wide: int, kernel: tuple[int, int] = (3, 3), padding: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(narrow, wide, kernel, padding=padding), nn.BatchNorm2d(wide), nn.ReLU()]

    return nn.Sequential(
        *convolution(1, 64),
        nn.Identity(),
        *convolution(64, 192),
        nn.MaxPool2d(3, stride=(1, 2)),
        *convolution(192, 384),
        *convolution(384, 256),
        *convolution(256, 256),
        nn.MaxPool2d(3, stride=2),
        *convolution(256, CODE, kernel=(5, 4), padding=0),
    )


def _lip_layers() -> nn.Sequential:
    """(B, 3, T, 224, 224) -> (B, 512, T - 4, 1, 1)."""

    def convolution(narrow: int, wide: int, side: int, time: int = 1, stride: int = 1, pad: int = 1) -> list[nn.Module]:
        layer = nn.Conv3d(narrow, wide, (time, side, side), stride=(1, stride, stride), padding=(0, pad, pad))
        return [layer, nn.BatchNorm3d(wide), nn.ReLU()]

    def pooling(pad: int = 0) -> nn.Module:
        return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, pad, pad))

    return nn.Sequential(
        *convolution(3, 96, side=7, time=LIP_FRAMES, stride=2, pad=0),
        pooling(),
        *convolution(96, 256, side=5, stride=2),
        pooling(pad=1),
        *convolution(256, 256, side=3),
        *convolution(256, 256, side=3),
        *convolution(256, 256, side=3),
        pooling(),
        *convolution(256, CODE, side=6, pad=0),
    )


@torch.no_grad()
def lip_stream(net: SyncNet, frames: Iterable[Tensor], windows: int, batch: int = 16) -> Tensor:
    """Embeddings of a clip's windows v … v + 4, for v = 0 … windows - 1.

    Args:
        net: on any device; frames are moved there.
        frames: (3, 224, 224) each, BGR, 0 to 255, of any type; read one after the other, and no more than needed.
        windows: how many; `sync_windows` in data/lip_sync.py counts them.
        batch: windows that are in memory at a time, about 12 MB each on a CPU.

    Returns:
        (windows, 1024) in the network's type, on the CPU.
    """
    parts = [net.embed_frames(_place(chunk, net)).cpu() for chunk in _stretches(frames, windows, batch)]
    return torch.cat(parts)


@torch.no_grad()
def audio_stream(net: SyncNet, mfcc: Tensor, batch: int = 64) -> Tensor:
    """Embeddings of a clip's speech: windows of MFCC, (N, 13, 20) -> (N, 1024) on the CPU."""
    chunks = [rearrange(chunk, "n c steps -> n 1 c steps") for chunk in mfcc.split(batch)]
    return torch.cat([net.embed_audio(_place(chunk, net)).cpu() for chunk in chunks])


def _place(values: Tensor, net: SyncNet) -> Tensor:
    weight = next(net.parameters())
    return values.to(weight.device, weight.dtype)


def _stretches(frames: Iterable[Tensor], windows: int, batch: int) -> Iterator[Tensor]:
    """Consecutive frames, (batch + 4, 3, 224, 224) and fewer at the end; the last four come again."""
    stream = iter(frames)
    kept: Sequence[Tensor] = list(islice(stream, LIP_FRAMES - 1))
    for start in range(0, windows, batch):
        wanted = min(batch, windows - start)
        new = list(islice(stream, wanted))
        if len(new) < wanted:
            found = start + len(new) + len(kept)
            raise ValueError(f"{found} frames: expected {windows + LIP_FRAMES - 1} for {windows} windows")
        yield torch.stack([*kept, *new])
        kept = [*kept, *new][1 - LIP_FRAMES :]
