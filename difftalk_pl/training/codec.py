"""The frozen autoencoder between the stages."""

from pathlib import Path

import torch
from torch import Tensor

from difftalk_pl.training.weights import Weights, read_weights


class LatentCodec:
    """E_I and D_I of the paper: images to latents before quantisation and back, never trained.

    It is no nn.Module on purpose, so that EMA does not copy it, and optimizers, DDP and `state_dict` do not see it.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.network = weights.autoencoder()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hash = weights.hash
        self.factor = self.network.config.factor

    @classmethod
    def load(cls, path: Path) -> "LatentCodec":
        """Load it from a checkpoint or a folder of either stage."""
        weights = read_weights(path)
        return cls(weights.codec or weights)

    def __deepcopy__(self, memo: dict) -> "LatentCodec":
        return self

    def to(self, device: torch.device) -> "LatentCodec":
        self.network.to(device)
        return self

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Encode (B, 3, H, W) in [-1, 1] as z, (B, 3, h, w); in 32 bits within autocast, too, as in the cache."""
        with torch.autocast(image.device.type, enabled=False):
            return self.network.encode(image.float())

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Decode z, (B, 3, h, w), through the codebook as (B, 3, H, W) in [-1, 1]."""
        with torch.autocast(z.device.type, enabled=False):
            return self.network.decode(z.float()).clamp(-1, 1)
