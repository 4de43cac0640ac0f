"""LPIPS of whole frames and of the hidden region, from the maps that a perceptual network makes of two frames."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from difftalk_pl.evaluation.frame_mean import FrameMean


def lpips(layers: Sequence[Tensor]) -> Tensor:
    """The published distance of every frame: the sum over layers of the mean over places.

    Args:
        layers: weighted squared differences of unit features, (B, 1, h, w) each.

    Returns:
        (B,) float64; 0 for equal frames.
    """
    return torch.stack([layer.double().mean((1, 2, 3)) for layer in layers]).sum(0)


def masked_lpips(layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The mean of LPIPS's distance map where a mask is 1.

    The map is the authors' spatial variant: every layer is enlarged to the frame, bilinearly, and the layers are
    added. A place of a deep layer sees its surroundings, so that differences close to the mask count as well.

    Args:
        layers: as for `lpips`.
        mask: (B, 1, H, W).

    Returns:
        (B,) float64; nan for a mask without a pixel.
    """
    weight = (mask > 0.5).double()
    enlarged = [F.interpolate(layer.double(), mask.shape[-2:], mode="bilinear") for layer in layers]
    return (torch.stack(enlarged).sum(0) * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


class LPIPS(FrameMean):
    """Mean over frames of `lpips`, or with a mask of `masked_lpips`."""

    higher_is_better = False

    def update(self, layers: Sequence[Tensor], mask: Tensor | None = None) -> None:
        """The maps of a chunk of frames, as for `lpips`; the mask is (B, 1, H, W)."""
        self.add(lpips(layers) if mask is None else masked_lpips(layers, mask))
