"""The released code's data layout, drawn: a folder of it, and ways to spoil it."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from difftalk_pl.data.prepare import prepare
from difftalk_pl.data.synthetic.dataset import perform

SIDE, FRAMES = 96, 130  # of the drawn layout
OPTIONS = {"size": 64, "min_face": 20}


def steps_of(frames: int, seed: int = 0) -> np.ndarray:
    """(2T, 29) float64, no two rows alike."""
    return np.random.default_rng(seed).standard_normal((2 * frames, 29))


def cut(steps: np.ndarray) -> np.ndarray:
    """AD-NeRF's way, step by step: drop the last row, pad by 8 rows, windows of 16 every 2, then 8 frames around.

    (2T, 29) -> (T, 8, 16, 29).
    """
    padded = np.concatenate([np.zeros((8, 29)), steps[:-1], np.zeros((9, 29))])
    windows = [padded[start : start + 16] for start in range(0, len(steps), 2)]
    nothing = [np.zeros((16, 29))] * 4
    held = nothing + windows + nothing
    return np.stack([np.stack(held[i : i + 8]) for i in range(len(windows))])


def write_layout(folder: Path, identity: str, audio: np.ndarray) -> None:
    """Frames, landmarks and windows of a drawn person."""
    drawn = perform(0, int(identity), FRAMES / 25)
    for kind in ("images", "landmarks", "audio_smooth"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for k, (frame, points) in enumerate(zip(drawn.frames(SIDE), drawn.landmarks(), strict=True)):
        Image.fromarray(frame).save(folder / "images" / f"{identity}_{k}.jpg", quality=95)
        np.savetxt(folder / "landmarks" / f"{identity}_{k}.lms", points * SIDE - 0.5, "%f")
        np.save(folder / "audio_smooth" / f"{identity}_{k}.npy", audio[k])


def table(root: Path) -> dict[str, dict[str, str]]:
    with (root / "clips.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def convert(layout: Path, root: Path, **options) -> dict[str, dict[str, str]]:
    prepare([], root, from_legacy=layout, **{**OPTIONS, **options})
    return table(root)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a file."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def resize(path: Path, size: tuple[int, int]) -> None:
    with Image.open(path) as image:
        image.resize(size).save(path)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()
