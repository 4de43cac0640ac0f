"""LPIPS with published weights, as a loss of stage 1 and as the network of a measure."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from difftalk_pl.models.perceptual import LPIPS, Network, published_state
from difftalk_pl.models.pretrained import file_hash, find_backbone, read_lpips_heads, read_tensors
from difftalk_pl.training.weights import load_into


@dataclass
class Perceptual:
    """The perceptual part of stage 1's loss. Published: vgg with weight 1.

    Args:
        network: alex, vgg or squeeze; null trains without it.
        weights: file of the network; by default the published one where `fetch-weights` puts it.
        weight: of the distance beside the mean absolute error.
    """

    network: Network | Literal["None"] | None = None
    weights: Path | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:  # jsonargparse passes a nested null of the command line as a word
        self.network = None if self.network == "None" else self.network
        self.weights = None if str(self.weights) in ("None", "null") else self.weights


class PerceptualDistance:
    """A frozen LPIPS with its file. No nn.Module, so that checkpoints, EMA, optimizers and DDP do not see it.

    weights: a file, or None for the published one in torch's folder. option: the setting of it, for messages.

    Raises MissingWeights for no file, UserError for a file of another network.
    """

    def __init__(self, network: Network, weights: Path | None, option: str) -> None:
        self.name, self.file = network, find_backbone(network, weights, option)
        self.network = LPIPS(network)
        load_into(self.network, published_state(read_tensors(self.file), read_lpips_heads(network)), self.file)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __deepcopy__(self, memo: dict) -> "PerceptualDistance":
        return self

    def to(self, device: torch.device) -> "PerceptualDistance":
        self.network.to(device)
        return self

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distances (B,), with gradients, of (B, 3, H, W) in [-1, 1]."""
        return self.network(x, y)

    @torch.no_grad()
    def layers(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return the maps (B, 1, h, w) of all layers, for measures: in 32 bits, also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return self.network.layers(x.float(), y.float())

    def describe(self) -> dict[str, str]:
        """Return what to publish with a number measured by it."""
        heads = f"torchmetrics {importlib.metadata.version('torchmetrics')}"
        return {"network": self.name, "file": self.file.name, "sha256": file_hash(self.file), "heads": heads}
