"""How close generated frames are to true ones: PSNR, SSIM and LPIPS of whole frames and of the generated region."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

DATA_RANGE = 2.0  # frames are in [-1, 1]


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of every frame, (B, C, H, W) -> (B,) float64; of a `similarity_map` it is SSIM.

    mask: (B, 1, H, W); only where it is 1. Without a pixel of it the mean is nan.
    """
    weight = torch.ones_like(values) if mask is None else (mask > 0.5).expand_as(values)
    return (values * weight.double()).flatten(1).sum(1) / weight.double().flatten(1).sum(1)


def psnr(generated: Tensor, true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio of every frame in dB, infinite for equal frames.

    Args:
        generated, true: (B, 3, H, W) in [-1, 1].
        mask: (B, 1, H, W); only where it is 1.

    Returns:
        (B,) float64.
    """
    return 10 * torch.log10(DATA_RANGE**2 / masked_mean((generated.double() - true.double()).square(), mask))


def similarity_map(generated: Tensor, true: Tensor) -> Tensor:
    """Return the structural similarity around every pixel: Gaussian window of 11 pixels, sigma 1.5, data range 2.

    Args:
        generated, true: (B, 3, H, W) in [-1, 1].

    Returns:
        (B, 3, H, W).
    """
    size = 1 if true.device.type == "cpu" else len(true)  # frame by frame is faster on CPUs, 32 bits everywhere
    pairs = zip(generated.float().split(size), true.float().split(size))
    options: dict[str, Any] = {"data_range": DATA_RANGE, "reduction": "none", "return_full_image": True}
    return torch.cat([structural_similarity_index_measure(*pair, **options)[1] for pair in pairs])


def lpips(layers: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Return LPIPS of every frame, from the distance maps of a perceptual network.

    Without a mask the published distance: the sum over layers of the mean over places. With a mask the mean of the
    authors' spatial variant where the mask is 1: every layer is enlarged to the frame, bilinearly, and the layers are
    added.

    Args:
        layers: weighted squared differences of unit features, (B, 1, h, w) each.
        mask: (B, 1, H, W).

    Returns:
        (B,) float64; 0 for equal frames, nan for a mask without a pixel.
    """
    if mask is None:
        return torch.stack([layer.double().mean((1, 2, 3)) for layer in layers]).sum(0)
    enlarged = [F.interpolate(layer.double(), mask.shape[-2:], mode="bilinear") for layer in layers]
    return masked_mean(torch.stack(enlarged).sum(0), mask)
