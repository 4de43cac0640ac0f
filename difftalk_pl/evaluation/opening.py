"""How far the mouth is open, seen in the picture and known from landmarks."""

import torch
from torch import Tensor

UPPER_INNER_LIP, LOWER_INNER_LIP = 62, 66
NOSE_BASE, RIGHT_EYE, LEFT_EYE = slice(31, 36), slice(36, 42), slice(42, 48)
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
# The window around the mouth, in distances from between the eyes to the nose's base.
MOUTH_CENTRE, HALF_WIDTH, HALF_HEIGHT = 1.65, 0.75, 0.55
DARK = 0.6  # of the window's median luminance: darker than this is the inside of the mouth


def true_opening(landmarks: Tensor) -> Tensor:
    """Return the distance of the inner lips, (B, 68, 2) -> (B,), in distances from eyes to nose."""
    gap = (landmarks[:, LOWER_INNER_LIP] - landmarks[:, UPPER_INNER_LIP]).norm(dim=-1)
    return gap / _face(landmarks)[2].norm(dim=-1)


def dark_opening(image: Tensor, landmarks: Tensor) -> Tensor:
    """Return the share of a window around the mouth that is as dark as the inside of a mouth.

    The window, upright in the face's axes, is placed by eyes and nose alone, so that it does not depend on the true
    mouth.

    Args:
        image: (B, 3, H, W) in [-1, 1].
        landmarks: (B, 68, 2), fractions of the side.

    Returns:
        (B,) between 0 and 1.
    """
    size = image.shape[-1]
    between, across, nose = _face(landmarks)
    between, nose = between * size, nose * size
    down = torch.stack([-across[:, 1], across[:, 0]], dim=-1)
    unit = (nose * down).sum(-1).clamp(min=1.0)
    centre = between + (nose * across).sum(-1, keepdim=True) * across + MOUTH_CENTRE * unit[:, None] * down
    axis = torch.arange(size, device=landmarks.device) + 0.5
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None] - centre[:, None, None]
    horizontal = torch.einsum("bhwx,bx->bhw", grid, across).abs() / unit[:, None, None]
    vertical = torch.einsum("bhwx,bx->bhw", grid, down).abs() / unit[:, None, None]
    inside = (horizontal <= HALF_WIDTH) & (vertical <= HALF_HEIGHT)
    luminance = torch.einsum("bchw,c->bhw", (image + 1) / 2, image.new_tensor(LUMINANCE))
    median = torch.stack([frame[window].median() for frame, window in zip(luminance, inside)])
    darkness = ((DARK - luminance / median.clamp(min=1e-3)[:, None, None]) / 0.2 + 0.5).clamp(0, 1)
    return (darkness * inside).sum((1, 2)) / inside.sum((1, 2))


def _face(landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the point between the eyes, (B, 2), the unit vector across the face, and the vector to the nose's base."""
    right, left = landmarks[:, RIGHT_EYE].mean(1), landmarks[:, LEFT_EYE].mean(1)
    across = (left - right) / (left - right).norm(dim=-1, keepdim=True).clamp(min=1e-6)
    between = (right + left) / 2
    return between, across, landmarks[:, NOSE_BASE].mean(1) - between
