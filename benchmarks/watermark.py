"""What the invisible mark costs and survives, on the first seconds of real videos.

    python benchmarks/watermark.py video.mp4 another.mp4@256 --seconds 5

`@256` cuts the middle square and scales it to 256 pixels first. Marked frames are written at CRF 18, as `animate`
writes them, and this file is what all other columns start from: encoded again at CRF 23 and 28; at half the width and
height and CRF 23; its second half alone; 2 % cut off at each side. Each cell holds the right bits of the model's 24,
and z; `found` needs z of 7.9. PSNR is of the marked frames before encoding, the lowest frame.
"""

import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from difftalk_pl.animate.watermark import Reading, Watermark, read_mark
from difftalk_pl.media.video import read_frames
from difftalk_pl.media.writer import write_video

MODEL = "a5c31f"
COLUMNS = (
    "video",
    "size",
    "PSNR, dB",
    "ms a frame",
    "unmarked z",
    "CRF 18",
    "CRF 23",
    "CRF 28",
    "half",
    "trim",
    "crop",
)


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    row(COLUMNS)
    row(["---"] * len(COLUMNS))
    for video in given.videos:
        path, _, size = video.partition("@")
        frames = list(islice(read_frames(path), round(given.seconds * 25)))
        row(measure(Path(path).name, [square(frame, int(size)) for frame in frames] if size else frames))


def measure(name: str, frames: list[np.ndarray]) -> list[str]:
    """One row of the table."""
    mark, start = Watermark(MODEL), time.perf_counter()
    marked = [mark.mark(frame) for frame in frames]
    spent = (time.perf_counter() - start) / len(frames) * 1000
    worst = min(psnr(*pair) for pair in zip(frames, marked))
    height, width = frames[0].shape[:2]
    unmarked = read_mark(frames)
    cells = [name, f"{width} x {height}", f"{worst:.1f}", f"{spent:.1f}", f"{unmarked.z:.1f}"]
    written = encoded(marked, 18)
    cells.append(told(read_mark(written)))
    cells += [told(read_mark(encoded(written, crf))) for crf in (23, 28)]
    changes: list[Callable[[list[np.ndarray]], Iterable[np.ndarray]]] = [halved, second_half, cropped]
    return [*cells, *(told(read_mark(encoded(change(written), 23))) for change in changes)]


def encoded(frames: Iterable[np.ndarray], crf: float) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, crf=crf)
        return list(read_frames(path))


def halved(frames: list[np.ndarray]) -> Iterable[np.ndarray]:
    height, width = frames[0].shape[:2]
    return (scaled(frame, width // 4 * 2, height // 4 * 2) for frame in frames)


def second_half(frames: list[np.ndarray]) -> list[np.ndarray]:
    return frames[len(frames) // 2 :]


def cropped(frames: list[np.ndarray]) -> Iterable[np.ndarray]:
    height, width = frames[0].shape[:2]
    return (frame[height // 50 : -(height // 50), width // 50 : -(width // 50)] for frame in frames)


def square(frame: np.ndarray, size: int) -> np.ndarray:
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return scaled(frame[top : top + side, left : left + side], size, size)


def scaled(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))


def psnr(true: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((true.astype(np.float32) - other) ** 2)))


def told(reading: Reading) -> str:
    if reading.model is None:
        return f"not found, {reading.z:.1f}"
    right = 24 - (int(reading.model, 16) ^ int(MODEL, 16)).bit_count()
    return f"{right}/24, {reading.z:.1f}" + ("" if reading.sure else ", unsure")


def row(cells: Iterable[str]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
