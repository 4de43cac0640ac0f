"""LPIPS 0.1: how different two pictures look to a network trained on ImageNet.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018. Convolutions have
torchvision's names and heads torchmetrics' names, so that their files load strictly without torchvision.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Network = Literal["alex", "vgg", "squeeze"]

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for [-1, 1]
EPSILON = 1e-8  # within the root, as in torchmetrics: its gradient is finite where no feature is active
VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class Fire(nn.Module):
    """SqueezeNet's block: (B, C, h, w) -> squeezed -> (B, 2 * expanded, h, w)."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1).relu()


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(True)),
    ]


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width in VGG16:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return layers


def _squeezenet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    ]


class Backbone(NamedTuple):
    """Layers in torchvision's numbering, the numbers of the compared ones, and their channels."""

    layers: Callable[[], list[nn.Module]]
    taps: tuple[int, ...]
    channels: tuple[int, ...]


BACKBONES: dict[Network, Backbone] = {
    "alex": Backbone(_alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "vgg": Backbone(_vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512)),
    "squeeze": Backbone(_squeezenet, (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)),
}


class LPIPS(nn.Module):
    """Frozen distance of pictures in [-1, 1], with gradients to the pictures only; in [0, 1] it would be too small."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        backbone = BACKBONES[network]
        self.taps = backbone.taps
        self.features = nn.Sequential(*backbone.layers())
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in backbone.channels)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "LPIPS":
        """Stay in evaluation mode, whatever the parent module does."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distances (B,) of (B, 3, H, W) in [-1, 1]: 0 for equal pictures, seldom above 1."""
        return torch.stack([layer.mean((1, 2, 3)) for layer in self.layers(x, y)]).sum(0)

    def layers(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Return a map of differences (B, 1, h, w) per tap; their means sum up to the distance.

        Features follow autocast; their comparison has at least 32 bits.
        """
        pairs = list(zip(self._unit_features(x), self._unit_features(y)))
        with torch.autocast(x.device.type, enabled=False):
            return [head((one - other).square()) for head, (one, other) in zip(self.heads, pairs)]

    def _unit_features(self, image: Tensor) -> list[Tensor]:
        """Return every tap's features, of length 1 at every place."""
        found, h = [], (image - self.shift) / self.scale
        for number, layer in enumerate(self.features):
            h = layer(h)
            if number in self.taps:
                wide = h.to(torch.promote_types(h.dtype, torch.float32))
                found.append(wide / (wide.square().sum(1, keepdim=True) + EPSILON).sqrt())
        return found
