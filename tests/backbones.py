"""ImageNet networks with weights drawn at random, in files as torchvision publishes them."""

from pathlib import Path

import torch

from difftalk_pl.models.perceptual import LPIPS, Network


def write_backbone(path: Path, network: Network = "squeeze") -> Path:
    """Convolutions under torchvision's names, and a classifier that nobody needs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = LPIPS(network).features
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**state, "classifier.1.weight": torch.zeros(10, 10)}, path)
    return path
