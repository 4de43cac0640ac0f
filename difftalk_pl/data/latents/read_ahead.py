"""Reads the files of the next pool of clips from end to end while the present one is drawn from at random.

What is drawn then lies in the page cache. A disk, and above all one on the network, gives files in one go many times
faster than pieces of 24 KiB.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from difftalk_pl.data.latents.available_memory import available_memory

log = logging.getLogger(__name__)

STREAMS = 4  # files that are read at the same time
PART = 4 << 20  # bytes a read


class ReadAhead:
    """For one process of a node: the page cache is the node's.

    Where the dataset is larger than the memory, the files of a pool that is over are given up, since the system might
    otherwise keep them and give up those that come next.

    Args:
        files: of the clip with a number.
        clips: how many there are.
    """

    def __init__(self, files: Callable[[int], Sequence[Path]], clips: int) -> None:
        self.files = files
        self._jobs: queue.SimpleQueue[tuple[Callable[[Path], None], Path]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._known: set[int] = set()  # in memory, or on their way there
        self._fits = _size(path for clip in range(clips) for path in files(clip)) < (available_memory() or 0)

    def __call__(self, now: list[int], following: list[int]) -> None:
        """A pool begins, by its clips, and another one follows. Returns at once."""
        needed = [*now, *following]
        self._ask(read, [clip for clip in needed if clip not in self._known])
        if not self._fits:
            self._ask(give_up, self._known - set(needed))  # last: the end of the old pool is still under way
        self._known = set(needed)
        if not self._threads:  # now, when the loader's processes have been forked
            self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(STREAMS)]
            for thread in self._threads:
                thread.start()

    def _ask(self, job: Callable[[Path], None], clips: Iterable[int]) -> None:
        for clip in clips:
            for path in self.files(clip):
                self._jobs.put((job, path))

    def _work(self) -> None:
        while True:
            job, path = self._jobs.get()
            try:
                job(path)
            except OSError as error:  # whoever needs the file says so
                log.debug("%s: %s", path, error)


def read(path: Path) -> None:
    """Into the page cache. Reading does it on every file system; advice is ignored by some."""
    buffer = bytearray(PART)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def give_up(path: Path) -> None:
    """Out of the page cache, where the system takes such advice."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())
