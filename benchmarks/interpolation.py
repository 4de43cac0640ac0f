"""How near do pictures drawn between frames come to true ones? On videos of which every second frame is left out.

    python benchmarks/interpolation.py --videos '[a.mp4,b.mp4]'

PSNR in dB of what stands in for the frames that were left out: the frame before it, the mean of both neighbours, and
what `interpolate` draws; of all pixels of all those frames together. `ms` is the time for one frame drawn so.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from difftalk_pl.animate.interpolate import interpolate
from difftalk_pl.media.video import probe, read_frames

Way = Callable[[Sequence[np.ndarray]], Iterator[np.ndarray]]  # kept frames to what is between them


def run(videos: list[Path], frames: int = 101, start: int = 0) -> None:
    """Print the table.

    Args:
        frames: of each video, at its own rate.
        start: the first of them.
    """
    ways: dict[str, Way] = {"repetition": lambda kept: iter(kept[:-1]), "average": averages}
    ways["minterpolate"] = between
    columns = ["clip", "size", "frames a second", *ways, *(f"{name}, ms" for name in list(ways)[2:])]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for path in videos:
        rate = probe(path).rate
        shown = list(islice(read_frames(path, rate), start, start + frames))
        shown = shown[: len(shown) - (len(shown) + 1) % 2]
        scores, times = zip(*(measure(shown[::2], shown[1::2], way) for way in ways.values()))
        cells = [path.stem, f"{shown[0].shape[1]} x {shown[0].shape[0]}", f"{rate:.4g}"]
        cells += [f"{score:.2f}" for score in scores] + [f"{1000 * seconds:.0f}" for seconds in times[2:]]
        print(f"| {' | '.join(cells)} |", flush=True)


def measure(kept: Sequence[np.ndarray], left_out: Sequence[np.ndarray], way: Way) -> tuple[float, float]:
    """PSNR, dB, and seconds a frame."""
    start = time.perf_counter()
    drawn = list(way(kept))
    seconds = time.perf_counter() - start
    errors = [np.square(a.astype(np.float32) - b).mean() for a, b in zip(drawn, left_out, strict=True)]
    return float(10 * np.log10(255**2 / np.mean(errors))), seconds / len(drawn)


def averages(kept: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    return ((a.astype(np.uint16) + b + 1) // 2 for a, b in pairwise(kept))


def between(kept: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    results = interpolate(kept, 2)
    return (image for place, image in enumerate(results) if place % 2 and place < 2 * len(kept) - 1)


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
