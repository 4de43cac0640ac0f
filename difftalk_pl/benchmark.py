"""The command `benchmark`: what data loading costs, and that it costs the same however many frames there are."""

import gc
import logging
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from difftalk_pl.data.audio import RATE
from difftalk_pl.data.clips import SAMPLES_PER_FRAME, ClipRow, create_dataset, open_clips, write_rows
from difftalk_pl.data.deepspeech import HIDDEN, DeepSpeech, deepspeech_input
from difftalk_pl.data.latent_cache import LatentCache
from difftalk_pl.data.references import ReferenceRule
from difftalk_pl.data.sampler import WindowSampler
from difftalk_pl.data.windows import TRAINING, Windows
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)

CODEC = "benchmark"
LATENT = (3, 64, 64)  # of 256 px frames with f=4, and of 512 px frames with f=8
SHORTER = 100  # times fewer frames in the dataset that stands beside the large one
MIN_GAP = 60


class Cost(NamedTuple):
    """What one dataset takes."""

    frames: int
    start_seconds: float  # from the folder to the first batch, the workers' start included
    growth: float  # MiB of anonymous memory that the parent gained from before the start to after the last batch
    rate: float  # windows a second, start-up apart


def benchmark(
    clips: int = 500,
    frames: int = 3000,
    batches: int = 200,
    workers: int = 2,
    batch_size: int = 32,
    speech: float | None = None,
) -> None:
    """Load latent windows of a large dataset and of one with a hundredth of its frames, and compare the costs.

    Both are made of empty (sparse) files in a temporary folder and are removed afterwards. Disk and page cache are
    therefore faster than with real latents: the table shows the loader's own cost.

    Args:
        clips: clips of both datasets.
        frames: frames of every clip of the large one.
        batches: batches to load.
        workers: loader processes.
        batch_size: windows a batch.
        speech: measure this instead: what DeepSpeech features of so many seconds cost.
    """
    if speech is not None:
        log.info("%s", speech_cost(speech))
        return
    if min(clips, batches, batch_size) < 1 or workers < 0 or frames < 2 * SHORTER:
        raise UserError(
            f"clips={clips}, frames={frames}, batches={batches}, workers={workers}, batch_size={batch_size}: "
            f"at least 1 clip, {2 * SHORTER} frames, 1 batch, 0 workers and 1 window a batch are needed"
        )
    costs = []
    for length in (frames // SHORTER, frames):
        with tempfile.TemporaryDirectory(prefix="difftalk_pl_") as folder:
            root = Path(folder)
            make_dataset(root, clips, length)
            log.info("%d clips of %d frames: loading %d batches", clips, length, batches)
            costs.append(_measure(root, gap_for(frames // SHORTER), batches, workers, batch_size))
    Console().print(_table(costs, clips))


class SpeechCost(NamedTuple):
    """What DeepSpeech features take."""

    speech: float  # seconds of sound
    coefficients: float  # seconds for MFCC and their windows
    network: float  # seconds
    threads: int
    device: str

    def __str__(self) -> str:
        total = self.coefficients + self.network
        return (
            f"DeepSpeech features of {self.speech:g} s of sound: {total:.1f} s ({total / self.speech:.2f} s a second), "
            f"{self.coefficients:.1f} s of them for its input, with {self.threads} threads on {self.device}"
        )


def speech_cost(seconds: float, hidden: int = HIDDEN, device: str | None = None) -> SpeechCost:
    """DeepSpeech 0.1.0 at its published size, with random weights and noise: the time does not depend on either."""
    if seconds * RATE < SAMPLES_PER_FRAME:
        raise UserError(f"speech={seconds:g}: at least a frame, {SAMPLES_PER_FRAME / RATE:g} s, is needed")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = DeepSpeech(hidden).eval().requires_grad_(False).to(where)
    samples = (np.random.default_rng(0).standard_normal(round(seconds * RATE)) * 3000).astype(np.int16)
    start = time.perf_counter()
    inputs = torch.from_numpy(deepspeech_input(samples))[None]
    middle = time.perf_counter()
    network(inputs.to(where)).cpu()
    end = time.perf_counter()
    return SpeechCost(seconds, middle - start, end - middle, torch.get_num_threads(), str(where))


def gap_for(frames: int) -> int:
    """Frames between target and reference: the usual 60, or less where the clips are too short for it."""
    return min(MIN_GAP, max(frames // 2, 1))


def make_dataset(root: Path, clips: int, frames: int, latent: tuple[int, int, int] = LATENT) -> None:
    """Write a dataset of sparse files: all there but the videos, all zero, hardly any disk used."""
    create_dataset(root, size=256)
    cache = LatentCache(root, CODEC, "mouth_safe")
    cache.describe()
    rows = [ClipRow(f"clip_{number:05d}", f"person_{number:05d}", frames, "benchmark", "ok") for number in range(clips)]
    for row in rows:
        folder = root / "clips" / row.name
        (folder / "features").mkdir(parents=True)
        open_memmap(folder / "landmarks.npy", "w+", np.float32, (frames, 68, 2))
        open_memmap(folder / "features" / "mfcc.npy", "w+", np.float32, (2 * frames, 26))
        open_memmap(cache.path(row.name), "w+", np.float16, (2, frames, *latent))
    write_rows(root, rows)


def open_windows(root: Path, min_gap: int) -> Windows:
    """The windows of such a dataset, opened as training opens them."""
    clips, cache = open_clips(root), LatentCache(root, CODEC, "mouth_safe")
    cache.check(clips)
    return Windows(clips, TRAINING, latents=cache, reference=ReferenceRule(min_gap))


def anonymous_memory() -> float:
    """MiB that this process holds of its own, without mapped files, which the system can take back. Linux."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def _measure(root: Path, min_gap: int, batches: int, workers: int, batch_size: int) -> Cost:
    gc.collect()
    memory, start = anonymous_memory(), time.perf_counter()
    windows = open_windows(root, min_gap)
    loader = DataLoader(windows, batch_size, sampler=WindowSampler(len(windows), seed=0), num_workers=workers)
    stream = iter(_epochs(loader))
    next(stream)
    started = time.perf_counter()
    for _ in islice(stream, batches):
        pass
    seconds = time.perf_counter() - started
    growth = anonymous_memory() - memory
    return Cost(sum(clip.frames for clip in windows.clips), started - start, growth, batches * batch_size / seconds)


def _epochs(loader: DataLoader):
    while True:
        yield from loader


def _table(costs: list[Cost], clips: int) -> Table:
    few, many = costs
    ratio = [large / small if small > 0 else float("nan") for small, large in zip(few, many, strict=True)]
    table = Table(title=f"data loading, {clips} clips; the cost must not follow the frames")
    for column in ("", f"{few.frames:,} frames", f"{many.frames:,} frames", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("frames", f"{few.frames:,}", f"{many.frames:,}", f"{ratio[0]:.0f}")
    table.add_row(
        "start-up to first batch, s", f"{few.start_seconds:.2f}", f"{many.start_seconds:.2f}", f"{ratio[1]:.2f}"
    )
    table.add_row("parent's memory growth, MiB", f"{few.growth:.1f}", f"{many.growth:.1f}", f"{ratio[2]:.2f}")
    table.add_row("windows a second", f"{few.rate:.0f}", f"{many.rate:.0f}", f"{ratio[3]:.2f}")
    return table
