"""LPIPS with published weights, as stage 1's loss and as the network behind a measure."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.models.perceptual import LPIPS, Network, published_state
from difftalk_pl.models.pretrained import file_hash, find_backbone, read_lpips_heads, read_tensors

NULLS = ("None", "null")


@dataclass
class Perceptual:
    """The perceptual part of stage 1's loss. Published: vgg with weight 1.

    Args:
        network: alex, vgg or squeeze; null trains without it.
        weights: file of the network, torchvision's or under any other name; without one, the published file in
            $TORCH_HOME/hub/checkpoints, where `fetch-weights` puts it.
        weight: of the distance beside the mean absolute error.
    """

    network: Network | Literal["None"] | None = None
    weights: Path | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """A null on the command line comes as a word, because jsonargparse hands it on as text to what is nested."""
        self.network = None if self.network == "None" else self.network
        self.weights = None if str(self.weights) in NULLS else self.weights

    def distance(self, option: str) -> "PerceptualDistance | None":
        """The network with its file; `option` as for `PerceptualDistance`."""
        if self.network is None or self.network == "None":
            return None
        return PerceptualDistance(self.network, self.weights, option)


class PerceptualDistance:
    """A frozen LPIPS with its file.

    It is no nn.Module on purpose, so that checkpoints, EMA, optimizers and DDP never see it.

    Args:
        network: alex, vgg or squeeze.
        weights: a file, or None for the published one in torch's folder.
        option: the setting that `weights` comes from, for messages.

    Raises:
        MissingWeights, UserError: no file, or not one of this network.
    """

    def __init__(self, network: Network, weights: Path | None, option: str) -> None:
        self.name, self.file = network, find_backbone(network, weights, option)
        self.network = LPIPS(network)
        state = published_state(read_tensors(self.file), read_lpips_heads(network))
        if misfits := _misfits(state, self.network.state_dict()):
            raise UserError(f"{self.file}: not the weights of {network}: {misfits}; {option} has to name such a file")
        self.network.load_state_dict(state, strict=True)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __deepcopy__(self, memo: dict) -> "PerceptualDistance":
        return self

    def to(self, device: torch.device) -> "PerceptualDistance":
        self.network.to(device)
        return self

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] twice -> (B,), with gradients to both."""
        return self.network(x, y)

    @torch.no_grad()
    def layers(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The maps (B, 1, h, w) of all layers, for measures: in 32 bits within autocast, too."""
        with torch.autocast(x.device.type, enabled=False):
            return self.network.layers(x.float(), y.float())

    def describe(self) -> dict[str, str]:
        """What a number made with it has to be published with."""
        heads = f"torchmetrics {importlib.metadata.version('torchmetrics')}"
        return {"network": self.name, "file": self.file.name, "sha256": file_hash(self.file), "heads": heads}


def _misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What of a state dict does not fit, each kind by its first name and a count; empty where all does."""
    both = [name for name in expected if name in state]
    kinds = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in both
            if state[name].shape != expected[name].shape
        ],
        "not finite": [name for name in both if not state[name].isfinite().all()],
    }
    return ", ".join(
        f"{kind} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for kind, names in kinds.items()
        if names
    )
