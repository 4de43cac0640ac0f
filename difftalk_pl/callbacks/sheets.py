"""Pictures of an evaluation: contact sheets, videos side by side, offset curves of SyncNet."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABEL_HEIGHT = 14


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], scale: int = 1) -> np.ndarray:
    """Arrange rows of equally large (H, W, 3) uint8 frames, each under its name, in one (H', W', 3) uint8 picture."""
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


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def side_by_side(rows: Mapping[str, Sequence[np.ndarray]], side: int = 192) -> Iterator[np.ndarray]:
    """Yield (H, W, 3) uint8 frames of several methods as those of one video, each under its name.

    Args:
        side: pixels that a frame should have at least; smaller ones are enlarged by a whole number.
    """
    scale = max(-(-side // next(iter(rows.values()))[0].shape[0]), 1)
    for frames in zip(*rows.values()):
        tiles = [contact_sheet([(name, [frame])], scale) for name, frame in zip(rows, frames)]
        yield np.concatenate(tiles, axis=1)


def offset_curves(path: Path, curves: Mapping[str, Sequence[float]], title: str) -> None:
    """Plot SyncNet's mean distance at every shift, one line a method, its best shift marked, and write a PNG.

    Args:
        curves: 2 S + 1 distances each; entry k is speech moved by k - S frames.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for method, curve in curves.items():
        offsets = len(curve) // 2 - np.arange(len(curve))  # as the scores count: negative where speech is late
        best = int(np.argmin(curve))
        line, *_ = axes.plot(offsets, curve, label=f"{method}: {offsets[best]:+d}")
        axes.plot(offsets[best], curve[best], "o", color=line.get_color())
    axes.set(xlabel="offset, frames", ylabel="mean distance", title=title)
    axes.legend()
    figure.savefig(path)
