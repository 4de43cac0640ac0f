"""Latents in the memory of a node, once for all of its processes. Linux.

The memory has a name that says which files it holds, but no place in any file system: the system frees it when the last
process that has it open is gone, however that one ended. Others find it through /proc. It begins with a byte for every
clip, 1 where the clip is there; whoever copies a clip locks its byte, so that all processes of a node share the work
and a dead one's part is done by another.
"""

import fcntl
import hashlib
import os
import random
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.files.array_file import Layout
from difftalk_pl.data.latents.available_memory import available_memory
from difftalk_pl.data.latents.cache import LatentCache, LatentFile
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar

PAGE = 4096
PART = 8 << 20  # bytes
DONE = b"\x01"


class LatentMemory:
    """The latents of these clips.

    Every process of a node that asks for the same files at the same state gets the same memory, also of another run.

    Raises:
        UserError: there is not enough memory; a file is missing, damaged, or changes meanwhile; this is no Linux.
    """

    def __init__(self, cache: LatentCache, clips: Sequence[Clip]) -> None:
        if not sys.platform.startswith("linux"):
            raise UserError("data.loading.latents_in_memory: needs Linux; set it to false, with order clips")
        self.numbers = {clip.name: number for number, clip in enumerate(clips)}
        self.layouts = [Layout.of(cache.open(clip)) for clip in clips]
        self.states = [_State.of(layout.path) for layout in self.layouts]
        ends = np.cumsum([len(clips), *(state.size for state in self.states)]) + PAGE * np.arange(1, len(clips) + 2)
        *self.starts, self.total = (int(end) // PAGE * PAGE for end in ends)
        key = [[str(layout.path.resolve()), *state] for layout, state in zip(self.layouts, self.states, strict=True)]
        self.name = f"difftalk_pl-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
        self._file: FileIO | None = self._find_or_make()
        self._copy_all()

    def reader(self, clip: Clip) -> LatentFile:
        """A clip's latents for reading at random."""
        number = self.numbers[clip.name]
        return LatentFile(self.layouts[number], self.file, self.starts[number])

    @property
    def file(self) -> FileIO:
        """The memory. A process that was not forked, but given a pickle, finds it where its sender has it open."""
        self._file = self._file or find(self.name)
        if self._file is None:
            raise UserError("data.loading.latents_in_memory: the process that held the latents has ended; start again")
        return self._file

    def _find_or_make(self) -> FileIO:
        with _one_at_a_time(self.name):
            if (found := find(self.name)) is not None:
                return found
            available = available_memory()
            if available is not None and self.total > available:
                raise UserError(
                    f"data.loading.latents_in_memory: needs {self.total / 1e9:.3g} GB of memory, "
                    f"{available / 1e9:.3g} GB are available on this node; set it to false, with order clips"
                )
            file = FileIO(os.memfd_create(self.name), "r+")
            file.truncate(self.total)
            return file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _copy_all(self) -> None:
        """Copy what nobody else copies; then wait for the others, and do what a dead one has left."""
        order = list(range(len(self.layouts)))
        random.Random(os.getpid()).shuffle(order)
        with progress_bar(transient=True) as bar:
            task = bar.add_task("latents into memory, clips", total=len(order))
            for number, wait in [*((number, False) for number in order), *((number, True) for number in order)]:
                self._copy_once(number, wait)
                bar.update(task, completed=os.pread(self.file.fileno(), len(order), 0).count(DONE))

    def _copy_once(self, number: int, wait: bool) -> None:
        if self._is_there(number):
            return
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except (BlockingIOError, PermissionError):  # another process copies it
            return
        try:
            if not self._is_there(number):
                self._copy(number)
                os.pwrite(self.file.fileno(), DONE, number)
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, number)

    def _is_there(self, number: int) -> bool:
        return os.pread(self.file.fileno(), 1, number) == DONE

    def _copy(self, number: int) -> None:
        path, state, place = self.layouts[number].path, self.states[number], self.starts[number]
        end, buffer = place + state.size, memoryview(bytearray(PART))
        with path.open("rb", buffering=0) as source:
            while place < end and (count := source.readinto(buffer[: end - place])):
                os.pwrite(self.file.fileno(), buffer[:count], place)
                place += count
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # it would be held twice
        if place < end or _State.of(path) != state:
            raise UserError(f"{path}: changed while it was copied; start again when cache-latents has ended")


class _State(NamedTuple):
    """Tells one content of a file from another."""

    size: int
    changed: int  # ns

    @classmethod
    def of(cls, path: Path) -> "_State":
        state = path.stat()
        return cls(state.st_size, state.st_mtime_ns)


def find(name: str) -> FileIO | None:
    """The memory of this name that a running process of this user has open."""
    for link in _open_files():
        try:
            if os.readlink(link) == f"/memfd:{name} (deleted)":
                return FileIO(link, "r+")
        except OSError:  # closed, or the process is gone
            continue
    return None


def _open_files() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield from (f"{process}/fd/{number}" for number in os.listdir(process / "fd"))
        except OSError:  # gone, or another user's
            continue


@contextmanager
def _one_at_a_time(name: str, patience: float = 60) -> Iterator[None]:
    """One process of the machine at a time, by an address that the system frees when its holder dies."""
    deadline = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX) as address:
        while True:
            try:
                address.bind(f"\0{name}-{os.getuid()}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
