"""What loading latents from a disk costs, cold and warm, beside what the disk itself can do."""

import ctypes
import logging
import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from difftalk_pl.data.clips import open_clips
from difftalk_pl.data.latents.read_ahead import STREAMS, give_up, read
from difftalk_pl.data.loading.loaders import Loading, make_loader, training_order
from difftalk_pl.errors import UserError
from difftalk_pl.loading_costs import LATENT, cache_of, gap_for, make_dataset, open_windows

log = logging.getLogger(__name__)

PIECE = 2 * LATENT[0] * LATENT[1] * LATENT[2]  # bytes of a frame's latents
READS = 2000  # at random places, of every thread
POOLS = 6  # at least, so that most of an epoch is read ahead
COLD = 0.1  # at most so much may still be in the page cache


class DiskLimits(NamedTuple):
    """What a disk gives without this package."""

    sequential: float  # MB a second, STREAMS files at a time
    one: float  # reads of PIECE bytes at random places a second, one after the other
    many: float  # the same by 16 threads


class DiskRate(NamedTuple):
    """Windows a second of one way to read."""

    way: str
    workers: int
    start_seconds: float  # to the first batch, from the cold disk
    cold: float
    warm: float


@contextmanager
def real_dataset(folder: Path, gigabytes: float, frames: int) -> Iterator[Path]:
    """Latents of random numbers that lie on the disk; removed afterwards."""
    size = 2 * frames * PIECE
    clips = max(round(gigabytes * 1e9 / size), 1)
    if shutil.disk_usage(folder).free < 1.1 * clips * size:
        raise UserError(f"{folder}: {clips * size / 1e9:.1f} GB do not fit; give a smaller --real or another --folder")
    with tempfile.TemporaryDirectory(prefix="difftalk_pl_", dir=folder) as inside:
        root = Path(inside)
        log.info("writing %d clips of %d frames, %.1f GB, to %s", clips, frames, clips * size / 1e9, folder)
        make_dataset(root, clips, frames, random=np.random.default_rng(0))
        for path in latents_of(root):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        yield root


def latents_of(root: Path) -> list[Path]:
    return [cache_of(root).path(clip.name) for clip in open_clips(root)]


def disk_limits(paths: list[Path]) -> DiskLimits:
    """Of the disk that holds these files."""
    cool(paths)
    seconds = _timed(lambda: _in_threads(STREAMS, read, paths))
    sequential = sum(path.stat().st_size for path in paths) / 1e6 / seconds
    rates = []
    for threads in (1, 16):
        cool(paths)
        seconds = _timed(lambda: _in_threads(threads, lambda key: _read_at_random(paths, key), range(threads)))  # noqa: B023
        rates.append(threads * READS / seconds)
    return DiskLimits(sequential, *rates)


def disk_rates(root: Path, loading: Loading, frames: int) -> Iterator[DiskRate]:
    """Every way to read, from the cold disk and again when everything is in memory."""
    pool = max(len(open_clips(root)) // POOLS, 1)
    ways = {
        "shuffled": (replace(loading, order="shuffled"), 0.1),  # a tenth of an epoch: later the cache would be warm
        "clips, read ahead": (replace(loading, order="clips", pool=pool), 1.0),
        "shuffled, latents in memory": (replace(loading, latents_in_memory=True), 1.0),
    }
    for way, (chosen, share) in ways.items():
        cool(latents_of(root))
        start, cold = _rate(root, chosen, frames, share)
        if not chosen.latents_in_memory:
            _in_threads(STREAMS, read, latents_of(root))
        _, warm = _rate(root, chosen, frames, share)
        yield DiskRate(way, loading.workers, start, cold, warm)


def _rate(root: Path, loading: Loading, frames: int, share: float) -> tuple[float, float]:
    """Seconds to the first batch; windows a second from there."""
    start = time.perf_counter()
    windows = open_windows(root, gap_for(frames), loading)
    loader = make_loader(
        windows, training_order(windows, loading, seed=0), loading.batch_size, loading.workers, drop_last=True
    )
    stream = iter(loader)
    next(stream)
    started = time.perf_counter()
    batches = sum(1 for _ in islice(stream, max(int(len(loader) * share), 1)))
    return started - start, batches * loading.batch_size / (time.perf_counter() - started)


def cool(paths: list[Path]) -> None:
    """Take the files out of the page cache. Raises UserError where the system keeps them."""
    for path in paths:
        give_up(path)
    kept = np.mean([resident(path) for path in paths])
    if kept > COLD:
        raise UserError(
            f"{paths[0].parent}: {kept:.0%} of the files stay in memory, so nothing cold can be measured; "
            "give a --folder on a disk"
        )


def resident(path: Path) -> float:
    """The share of a file that is in the page cache, from 0 to 1. Linux."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:  # writable for ctypes
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        address = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(address)), ctypes.c_size_t(len(mapped)), pages
        )
        del address
        if failed:
            raise OSError(ctypes.get_errno(), "mincore", str(path))
        return float((np.array(pages) & 1).mean())


def _read_at_random(paths: list[Path], key: int) -> None:
    places, files = random.Random(key), [path.open("rb", buffering=0) for path in paths]
    for _ in range(READS):
        file = places.choice(files)
        os.pread(file.fileno(), PIECE, places.randrange(os.fstat(file.fileno()).st_size - PIECE))
    for file in files:
        file.close()


def _in_threads(threads: int, job: Callable, items: Iterable) -> None:
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(job, items))


def _timed(job: Callable[[], None]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start
