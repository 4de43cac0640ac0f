"""8 bit pixels and what networks take, in both directions."""

import numpy as np
from torch import Tensor


def to_network(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / 127.5 - 1


def to_pixels(image: Tensor) -> np.ndarray:
    """(..., 3, H, W) in [-1, 1] -> (..., H, W, 3) uint8."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return pixels.movedim(-3, -1).numpy().astype(np.uint8)
