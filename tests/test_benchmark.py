"""A hundred times more frames cost no more memory and no more open files."""

import gc
import multiprocessing
import os
import sys
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from difftalk_pl.benchmark import benchmark, speech_cost
from difftalk_pl.data.windows.dataset import OPEN_CLIPS
from difftalk_pl.data.windows.sampler import WindowSampler
from difftalk_pl.errors import UserError
from difftalk_pl.loading_costs import anonymous_memory, make_dataset, open_windows

CLIPS, DRAWS, GAP = 500, 2000, 10
FEW, MANY = 30, 3000  # frames a clip: 15,000 and 1.5 million

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Held(NamedTuple):
    """What a process holds after start-up and after the draws."""

    allocated_at_start: float  # MiB that Python and numpy allocated since before the dataset was opened
    allocated: float
    anonymous: float  # MiB of the process, likewise; mapped files do not count
    files_at_start: int
    files: int


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def draw_windows(root: Path, results) -> None:
    windows = open_windows(root, GAP)  # once before, so that imports and caches do not count
    windows[0]
    del windows
    gc.collect()
    files = open_files()
    tracemalloc.start()
    memory = anonymous_memory()
    windows = open_windows(root, GAP)
    draws = iter(WindowSampler(len(windows), seed=0))
    windows[next(draws)]
    at_start, files_at_start = tracemalloc.get_traced_memory()[0], open_files() - files
    for draw in islice(draws, DRAWS):
        windows[draw]
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    results.put(
        Held(at_start / 2**20, after / 2**20, anonymous_memory() - memory, files_at_start, open_files() - files)
    )


def held(root: Path) -> Held:
    """Measured in a process of its own, which has read nothing else."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=draw_windows, args=(root, results))
    process.start()
    found = results.get(timeout=120)
    process.join()
    return found


def test_memory_and_open_files_do_not_grow_with_the_frames(tmp_path):
    for frames in (FEW, MANY):
        make_dataset(tmp_path / str(frames), CLIPS, frames, latent=(3, 16, 16))
    few, many = held(tmp_path / str(FEW)), held(tmp_path / str(MANY))
    # One number a frame, of 8 bytes, would be 11.4 MiB.
    assert many.allocated_at_start < few.allocated_at_start + 0.5
    assert many.allocated < few.allocated + 0.5
    assert many.anonymous < few.anonymous + 4
    assert (many.files_at_start, many.files) == (few.files_at_start, few.files)
    assert many.files_at_start < 10 and many.files <= 4 * OPEN_CLIPS


def test_the_command_prints_a_table_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    benchmark(clips=3, frames=300, batches=3, workers=0, batch_size=4)
    printed = capsys.readouterr().out
    for text in ("9 frames", "900 frames", "start-up", "memory growth", "windows a second", "100"):
        assert text in printed
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"frames=20.*at least 1 clip, 200 frames"):
        benchmark(frames=20)


def test_the_cost_of_speech_features_is_measured():
    cost = speech_cost(2.0, hidden=16, device="cpu")
    assert cost.coefficients > 0 and cost.network > 0
    assert "2 s of sound" in str(cost) and "on cpu" in str(cost)
    with pytest.raises(UserError, match="at least a frame"):
        benchmark(speech=0.01)
