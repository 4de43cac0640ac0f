"""The command `benchmark`: what data loading costs, and that it costs the same however many frames there are."""

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from difftalk_pl.data.audio import RATE
from difftalk_pl.data.clips import SAMPLES_PER_FRAME
from difftalk_pl.data.loading.loaders import Loading
from difftalk_pl.data.speech.deepspeech import HIDDEN, DeepSpeech, deepspeech_input
from difftalk_pl.disk_costs import PIECE, DiskLimits, DiskRate, disk_limits, disk_rates, latents_of, real_dataset
from difftalk_pl.errors import UserError
from difftalk_pl.loading_costs import Cost, gap_for, make_dataset, measure_alone

log = logging.getLogger(__name__)

SHORTER = 100  # times fewer frames in the dataset that stands beside the large one
READS = 3  # pieces of latents a window
ORDERS: tuple[Literal["shuffled", "clips"], ...] = ("shuffled", "clips")


def benchmark(
    clips: int = 500,
    frames: int = 3000,
    batches: int = 200,
    workers: int | list[int] = 2,
    batch_size: int = 32,
    real: float | None = None,
    folder: Path | None = None,
    speech: float | None = None,
) -> None:
    """Load latent windows of a large dataset and of one with a hundredth of its frames, and compare the costs.

    Both are made of empty (sparse) files in a temporary folder and are removed afterwards. Disk and page cache are
    therefore faster than with real latents: the table shows the loader's own cost. --real reads from a disk.

    Args:
        clips: clips of both datasets.
        frames: frames of every clip of the large one.
        batches: batches to load.
        workers: loader processes; a list measures each, [1,2,4].
        batch_size: windows a batch.
        real: measure this instead: so many GB of latents on a disk, cold and warm, beside the disk's own speed.
        folder: on that disk; the system's temporary folder by default.
        speech: measure this instead: what DeepSpeech features of so many seconds cost.
    """
    if speech is not None:
        log.info("%s", speech_cost(speech))
        return
    each = [workers] if isinstance(workers, int) else workers
    if min(clips, batches, batch_size) < 1 or not each or min(each) < 0 or frames < 2 * SHORTER:
        raise UserError(
            f"clips={clips}, frames={frames}, batches={batches}, workers={workers}, batch_size={batch_size}: "
            f"at least 1 clip, {2 * SHORTER} frames, 1 batch, 0 workers and 1 window a batch are needed"
        )
    ways = [Loading(batch_size, workers=number) for number in each]
    if real is not None:
        with real_dataset(folder or Path(tempfile.gettempdir()), real, frames) as root:
            limits = disk_limits(latents_of(root))
            Console().print(_disk_table(limits, [rate for way in ways for rate in disk_rates(root, way, frames)]))
        return
    ways = [Loading(batch_size, workers=way.workers, order=order) for order in ORDERS for way in ways]
    costs = []
    for length in (frames // SHORTER, frames):
        with tempfile.TemporaryDirectory(prefix="difftalk_pl_") as inside:
            make_dataset(Path(inside), clips, length)
            for way in ways:
                log.info("%d clips of %d frames, %s: loading %d batches", clips, length, _title(way), batches)
                costs.append(measure_alone(Path(inside), gap_for(frames // SHORTER), batches, way))
    Console().print(_table(costs[: len(ways)], costs[len(ways) :], ways, clips))


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


ROWS = {
    "start_seconds": ("start-up to first batch, s", ".2f"),
    "growth": ("parent's memory growth, MiB", ".1f"),
    "worker": ("largest worker's memory, MiB", ".1f"),
    "worker_growth": ("worker's memory growth, MiB", ".1f"),
    "proportional": ("all processes' memory (PSS), MiB", ".0f"),
    "rate": ("windows a second", ".0f"),
}


def _title(way: Loading) -> str:
    return f"{way.order}, {way.workers} worker{'' if way.workers == 1 else 's'}"


def _table(few: Sequence[Cost], many: Sequence[Cost], ways: Sequence[Loading], clips: int) -> Table:
    table = Table(title=f"data loading, {clips} clips; the cost must not follow the frames")
    for column in ("", f"{few[0].frames:,} frames", f"{many[0].frames:,} frames", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("frames", f"{few[0].frames:,}", f"{many[0].frames:,}", f"{many[0].frames / few[0].frames:.0f}")
    for small, large, way in zip(few, many, ways, strict=True):
        table.add_section()
        table.add_row(f"[bold]{_title(way)}")
        for name, (label, form) in ROWS.items():
            one, other = getattr(small, name), getattr(large, name)
            table.add_row(label, f"{one:{form}}", f"{other:{form}}", f"{other / one:.2f}" if one > 0 else "-")
    return table


def _disk_table(limits: DiskLimits, rates: Sequence[DiskRate]) -> Table:
    size, pieces = PIECE // 1024, f"{limits.one:.0f} by one thread, {limits.many:.0f} by 16"
    table = Table(
        title="windows a second from the disk",
        caption=f"the disk itself: {limits.sequential:.0f} MB/s of whole files; pieces of {size} KiB a second: "
        f"{pieces}; a window reads {READS} pieces, with read-ahead every byte is read once an epoch",
    )
    for column in ("", "workers", "first batch, s", "cold", "warm"):
        table.add_column(column, justify="right" if column else "left")
    for rate in rates:
        table.add_row(rate.way, str(rate.workers), f"{rate.start_seconds:.2f}", f"{rate.cold:.0f}", f"{rate.warm:.0f}")
    return table
