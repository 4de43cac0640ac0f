"""Contact sheets: frames side by side, one row a method, over time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABEL_HEIGHT = 14


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


def side_by_side(rows: Mapping[str, Sequence[np.ndarray]], side: int = 192) -> Iterator[np.ndarray]:
    """Frames of several methods as those of one video, each under its name; small ones are enlarged by a whole number.

    Args:
        rows: (H, W, 3) uint8 frames of equal sizes and numbers, by method.
        side: pixels that a frame should have at least.
    """
    scale = max(-(-side // next(iter(rows.values()))[0].shape[0]), 1)
    for frames in zip(*rows.values()):
        tiles = [contact_sheet([(name, [frame])], scale) for name, frame in zip(rows, frames)]
        yield np.concatenate(tiles, axis=1)
