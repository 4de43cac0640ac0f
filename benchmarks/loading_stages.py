"""Where the time of a latent window goes: one by one, and in whole batches, in one process without a disk.

    python benchmarks/loading_stages.py

The files are sparse and in the page cache after the first round; the second one is timed.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from pathlib import Path

from torch.utils.data import default_collate

from difftalk_pl.data.loading.latent_batches import LatentBatches
from difftalk_pl.data.windows.dataset import Windows
from difftalk_pl.data.windows.sampler import WindowSampler
from difftalk_pl.loading_costs import MIN_GAP, make_dataset, open_windows

CLIPS, FRAMES, WINDOWS, BATCH = 500, 3000, 3200, 16
ONE_BY_ONE = {
    "_files": "opening files",
    "_reference": "reference",
    "_add_latents": "latents",
    "_add_conditions": "sound and landmarks",
}
WHOLE = {
    "_place": "place and reference",
    "_read_latents": "latents",
    "_read_landmarks": "landmarks",
    "_read_audio": "sound",
}


@contextmanager
def timed(owner: type, stages: dict[str, str], seconds: dict[str, float]) -> Iterator[None]:
    """Add up what these methods take."""
    before = {name: getattr(owner, name) for name in stages}
    for name, method in before.items():
        setattr(owner, name, _watched(method, stages[name], seconds))
    yield
    for name, method in before.items():
        setattr(owner, name, method)


def _watched(method: Callable, stage: str, seconds: dict[str, float]) -> Callable:
    @wraps(method)
    def watched(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    return watched


def measure(title: str, owner: type, stages: dict[str, str], read: Callable, batches: Sequence[list]) -> None:
    for batch in batches:
        read(batch)
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    total = time.perf_counter() - start
    seconds: dict[str, float] = defaultdict(float)
    with timed(owner, stages, seconds):
        for batch in batches:
            read(batch)
    print(f"| {title} | {total / WINDOWS * 1e6:.0f} |")
    for stage, spent in seconds.items():
        print(f"| - {stage} | {spent / WINDOWS * 1e6:.0f} |")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), CLIPS, FRAMES)
        windows = open_windows(Path(folder), MIN_GAP)
        draws = list(islice(iter(WindowSampler(len(windows), seed=0)), WINDOWS))
        batches = [draws[start : start + BATCH] for start in range(0, WINDOWS, BATCH)]
        print(f"| stage, batches of {BATCH} | us a window |\n| --- | --- |")
        one_by_one = lambda batch: default_collate([windows[draw] for draw in batch])  # noqa: E731
        measure("one by one, collated", Windows, ONE_BY_ONE, one_by_one, batches)
        measure("whole batches", LatentBatches, WHOLE, LatentBatches(windows).__getitems__, batches)


if __name__ == "__main__":
    main()
