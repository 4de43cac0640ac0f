"""The arrays of a clip, read by position.

Files are read without a mapping: at random places a mapping reads ahead on every page fault, up to 8 MiB for a row of
24 KiB on some machines.
"""

import os

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.features.windows import smoothing_windows
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.errors import UserError


class ArrayRows:
    """The rows of a memory-mapped array. The file is open only while rows are read, so that any number may be kept."""

    def __init__(self, array: np.memmap) -> None:
        assert array.filename is not None
        self.path, self.dtype, self.shape, self.offset = array.filename, array.dtype, array.shape, array.offset
        self.row_bytes = array.itemsize * int(np.prod(array.shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        (found,) = self.read([first], last - first)
        return found

    def read(self, firsts: list[int], count: int = 1) -> np.ndarray:
        """Return `count` rows from each of the given positions, (len(firsts), count, ...)."""
        rows = np.empty((len(firsts), count, *self.shape[1:]), self.dtype)
        file = os.open(self.path, os.O_RDONLY)
        try:
            for target, first in zip(rows, firsts, strict=True):
                if os.preadv(file, [target.data], self.offset + first * self.row_bytes) != target.nbytes:
                    raise OSError(f"{self.path}: the file ends before row {first + count}")
        finally:
            os.close(file)
        return rows


class ClipFiles:
    """One clip's arrays as one process reads them; nothing stays open but the video."""

    def __init__(self, clip: Clip, features: str | None, channels: int | None, latents: LatentCache | None) -> None:
        self.clip = clip
        self.landmarks = _rows(clip.pool_landmarks)
        self.features = None if features is None else _rows(clip.features(features))
        if channels is not None and self.features is not None and self.features.shape[1] != channels:
            raise UserError(
                f"{clip.name}: {features} features of {self.features.shape[1]} channels, the model takes {channels}; "
                "make them again with add-features"
            )
        self.latents: ArrayRows | None = None
        if latents is not None:
            array = latents.open(clip)
            self.latents = ArrayRows(array.reshape(-1, *array.shape[2:]))
        self.scores: np.ndarray | None = None  # of all frames as references, where there is one for all

    def read_latents(self, frame: int, reference: int) -> list[np.ndarray]:
        """Return z, z_masked and z_reference, (3, h, w) float32 each."""
        assert self.latents is not None
        rows = self.latents.read([frame, self.clip.frames + frame, reference])
        return [row[0] for row in rows.astype(np.float32)]

    def audio(self, moment: float, around: tuple[int, int]) -> np.ndarray:
        """Return the audio windows around a moment, (8, 16, C); reads no more steps than they need."""
        if isinstance(self.features, np.ndarray):
            return smoothing_windows(self.features, np.array(moment), around)
        assert self.features is not None
        first = max(2 * int(moment - around[0]) - 10, 0)
        steps = self.features[first : 2 * int(moment + around[1]) + 12]
        return smoothing_windows(steps, np.array(moment - first / 2), around)


def _rows(array: np.ndarray) -> ArrayRows | np.ndarray:
    """A mapped file is read by position; an array in memory is taken as it is."""
    return ArrayRows(array) if isinstance(array, np.memmap) else array
