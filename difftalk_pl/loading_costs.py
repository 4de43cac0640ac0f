"""What loading latent windows costs: datasets of empty files as large as one likes, and loaders that are watched."""

import gc
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import ClipRow, create_dataset, open_clips, write_rows
from difftalk_pl.data.latents.cache import LatentCache
from difftalk_pl.data.loading.loaders import Loading, make_loader, open_latents, training_order
from difftalk_pl.data.windows.dataset import TRAINING, Windows
from difftalk_pl.data.windows.references import ReferenceRule

CODEC = "benchmark"
LATENT = (3, 64, 64)  # of 256 px frames with f=4, and of 512 px frames with f=8
MIN_GAP = 60


class Cost(NamedTuple):
    """What loading takes. Memory is in MiB: anonymous where nothing else is said, without mapped files and sharing."""

    frames: int
    start_seconds: float  # from the folder to the first batch, the workers' start included
    growth: float  # of the parent, from before the start to after the last batch
    worker: float  # the largest worker's after the last batch, what it has in common with its parent included
    worker_growth: float  # the most that a worker grew by after the first twentieth of the batches
    proportional: float  # of all processes together, every page counted once
    rate: float  # windows a second, start-up apart


def make_dataset(
    root: Path,
    clips: int,
    frames: int,
    latent: tuple[int, int, int] = LATENT,
    random: np.random.Generator | None = None,
) -> None:
    """Write a dataset of sparse files: all there but the videos, all zero, hardly any disk used.

    Args:
        random: fills the latents, so that they lie on the disk.
    """
    create_dataset(root, size=256)
    cache = LatentCache(root, CODEC, "mouth_safe")
    cache.describe()
    rows = [ClipRow(f"clip_{number:05d}", f"person_{number:05d}", frames, "benchmark", "ok") for number in range(clips)]
    for row in rows:
        folder = root / "clips" / row.name
        (folder / "features").mkdir(parents=True)
        open_memmap(folder / "landmarks.npy", "w+", np.float32, (frames, 68, 2))
        open_memmap(folder / "features" / "mfcc.npy", "w+", np.float32, (2 * frames, 26))
        if random is None:
            open_memmap(cache.path(row.name), "w+", np.float16, (2, frames, *latent))
        else:
            np.save(cache.path(row.name), random.standard_normal((2, frames, *latent), np.float32).astype(np.float16))
    write_rows(root, rows)


def cache_of(root: Path) -> LatentCache:
    return LatentCache(root, CODEC, "mouth_safe")


def open_windows(root: Path, min_gap: int, loading: Loading | None = None) -> Windows:
    """The windows of such a dataset, opened as training opens them."""
    clips = open_clips(root)
    latents = open_latents(cache_of(root), clips, loading or Loading())
    return Windows(clips, TRAINING, latents=latents, reference=ReferenceRule(min_gap))


def gap_for(frames: int) -> int:
    """Frames between target and reference: the usual 60, or less where the clips are too short for it."""
    return min(MIN_GAP, max(frames // 2, 1))


def measure_alone(root: Path, min_gap: int, batches: int, loading: Loading) -> Cost:
    """As `measure`, in a process of its own: loaders inherit what their parent has kept of earlier work."""
    context, usual = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
    with ProcessPoolExecutor(1, context, initializer=_start_as, initargs=(usual,)) as process:
        process.submit(measure, root, min_gap, 1, replace(loading, workers=0)).result()  # imports what is needed
        return process.submit(measure, root, min_gap, batches, loading).result()


def _start_as(method: str) -> None:
    """A spawned process would spawn its own, and training does not everywhere."""
    multiprocessing.set_start_method(method, force=True)


def measure(root: Path, min_gap: int, batches: int, loading: Loading) -> Cost:
    """Load so many batches of training, over as many epochs as they need."""
    gc.collect()
    memory, start = anonymous_memory(), time.perf_counter()
    windows = open_windows(root, min_gap, loading)
    sampler = training_order(windows, loading, seed=0)
    stream = _epochs(make_loader(windows, sampler, loading.batch_size, loading.workers))
    next(stream)
    started = time.perf_counter()
    early = max(batches // 20, min(2 * loading.workers, batches))
    _consume(stream, early)
    workers = [process.pid for process in multiprocessing.active_children() if process.pid is not None]
    before = {pid: anonymous_memory(pid) for pid in workers}
    _consume(stream, batches - early)
    seconds = time.perf_counter() - started
    after = {pid: anonymous_memory(pid) for pid in workers}
    return Cost(
        frames=sum(clip.frames for clip in windows.clips),
        start_seconds=started - start,
        growth=anonymous_memory() - memory,
        worker=max(after.values(), default=0.0),
        worker_growth=max((after[pid] - before[pid] for pid in workers), default=0.0),
        proportional=sum(proportional_memory(pid) for pid in [os.getpid(), *workers]),
        rate=batches * loading.batch_size / seconds,
    )


def _consume(stream: Iterator, batches: int) -> None:
    """Ends with the command, should that be killed."""
    command = multiprocessing.parent_process()
    for _ in islice(stream, batches):
        if command is not None and not command.is_alive():
            raise SystemExit(1)


def _epochs(loader: DataLoader) -> Iterator:
    """One epoch after another, as a trainer asks for them."""
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        yield from loader
        epoch += 1


def anonymous_memory(process: int | None = None) -> float:
    """MiB that a process holds of its own, without mapped files, which the system can take back. Linux."""
    return _told(Path(f"/proc/{process or 'self'}/status"), "RssAnon")


def proportional_memory(process: int) -> float:
    """MiB that a process holds, pages that several hold divided among them. Linux."""
    return _told(Path(f"/proc/{process}/smaps_rollup"), "Pss:")


def _told(file: Path, entry: str) -> float:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.nan
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(entry)), math.nan)
