"""Rows of `.npy` files read by their place, without a mapping.

Through a mapping, every page fault at a random place reads ahead, and what it reads grows with the file: 8 MiB for 24
KiB on some machines. Opening a file for every read costs a round trip on network disks: it stays open, as long as the
process may have so many open.
"""

import io
import os
import resource
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from difftalk_pl.errors import UserError

KEPT_FREE = 256  # of the files that a process may have open


class Layout(NamedTuple):
    """What the header of a `.npy` file says, and where its numbers begin."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes

    @classmethod
    def of(cls, array: np.ndarray) -> "Layout":
        """Of a mapped file: mapping holds the header against the file's length."""
        assert isinstance(array, np.memmap) and array.filename is not None
        return cls(Path(array.filename), array.dtype, array.shape, array.offset)


class ArrayFile:
    """The rows of one array. It is opened when it is first read.

    Args:
        layout: of the file.
        file: what holds the same bytes, where it is not the array's own file; it is not closed here.
        start: where in there the array's file would begin.
    """

    def __init__(self, layout: Layout, file: io.FileIO | None = None, start: int = 0) -> None:
        self.path, self.dtype, self.shape = layout.path, layout.dtype, layout.shape
        self.row = self.dtype.itemsize * int(np.prod(self.shape[1:]))  # bytes
        self._offset = start + layout.offset
        self._given, self._file = file, file
        self._key = id(self)

    def __len__(self) -> int:
        return self.shape[0]

    def read_into(self, target: np.ndarray, first: int) -> None:
        """Fill `target`, contiguous and of the file's type, with the rows from `first` on.

        Raises:
            UserError: the file ends before.
        """
        if os.preadv(self._open().fileno(), [target.data], self._offset + first * self.row) != target.nbytes:
            raise UserError(f"{self.path}: ends before row {first + len(target)}; remove it and make it again")

    def read(self, first: int, last: int) -> np.ndarray:
        """The rows from `first` to before `last`, (last - first, ...)."""
        rows = np.empty((last - first, *self.shape[1:]), self.dtype)
        self.read_into(rows, first)
        return rows

    def expect(self, row: int) -> None:
        """Ask the system to have a row at hand soon, so that the reads of a batch do not wait for each other."""
        if self._given is None and hasattr(os, "posix_fadvise"):
            place = self._offset + row * self.row
            os.posix_fadvise(self._open().fileno(), place, self.row, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """It is opened again when it is read."""
        _opened.pop(self._key, None)
        if self._file is not None and self._file is not self._given:
            self._file.close()
        self._file = self._given

    def _open(self) -> io.FileIO:
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
            _opened[self._key] = weakref.ref(self)
            _close_oldest()
        elif self._file is not self._given:
            _opened.move_to_end(self._key)
        return self._file

    def __del__(self) -> None:
        self.close()


_opened: OrderedDict[int, weakref.ref[ArrayFile]] = OrderedDict()  # of this process, by the time of the last read


def _close_oldest() -> None:
    """Down to what the system allows, but never the one that was opened last."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    while len(_opened) > max(allowed - KEPT_FREE, allowed // 2, 1) and allowed != resource.RLIM_INFINITY:
        oldest = next(iter(_opened.values()))()
        if oldest is None:
            _opened.popitem(last=False)
        else:
            oldest.close()
