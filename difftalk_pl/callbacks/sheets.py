"""Contact sheets: frames side by side, one row a method, over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

LABEL_HEIGHT = 14


def to_pixels(image: Tensor) -> np.ndarray:
    """(..., 3, H, W) in [-1, 1] -> (..., H, W, 3) uint8."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return pixels.movedim(-3, -1).numpy().astype(np.uint8)


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], scale: int = 1) -> np.ndarray:
    """Rows of equally large (H, W, 3) uint8 frames, each row under its name -> one (H', W', 3) uint8 picture."""
    height, width = (side * scale for side in rows[0][1][0].shape[:2])
    columns = max(len(frames) for _, frames in rows)
    sheet = Image.new("RGB", (columns * (width + 2), len(rows) * (height + LABEL_HEIGHT)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, frames) in enumerate(rows):
        top = row * (height + LABEL_HEIGHT)
        draw.text((2, top + 1), name, fill="black")
        for column, frame in enumerate(frames):
            tile = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (column * (width + 2), top + LABEL_HEIGHT))
    return np.asarray(sheet)


def save_picture(path: Path, picture: np.ndarray) -> Path:
    """Write a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path
