"""Whole batches of latent windows, read straight from the files into the memory that the loader's process hands over.

One by one, a window costs seven tensors, copies of each into a batch, and a file descriptor for each of the batch's.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch.utils.data import Dataset, get_worker_info

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.dataset import LANDMARKS_WITHOUT_MOUTH, TRAINING, Draw, Window, Windows
from difftalk_pl.data.features.windows import STEPS_PER_FRAME, WINDOW
from difftalk_pl.data.files.array_file import ArrayFile, Layout
from difftalk_pl.data.latents import LatentFile, Latents
from difftalk_pl.errors import UserError

POINTS = list(LANDMARKS_WITHOUT_MOUTH)
Row = tuple[torch.dtype, tuple[int, ...]]  # type and shape of a tensor


class _Files(NamedTuple):
    """What is read of one clip."""

    clip: Clip
    latents: LatentFile
    landmarks: ArrayFile
    features: ArrayFile

    @classmethod
    def of(cls, clip: Clip, latents: Latents, kind: str) -> "_Files":
        landmarks, features = (ArrayFile(Layout.of(array)) for array in (clip.landmarks, clip.features(kind)))
        return cls(clip, latents.reader(clip), landmarks, features)


class _Place(NamedTuple):
    """A window of a batch."""

    files: _Files
    frame: int
    reference: int


class LatentBatches(Dataset):
    """What the default collation makes of `Windows`, but for z, z_masked and z_reference, which stay float16.

    As they lie in the cache they are half as large on their way to the device; `to_network_precision` turns them there.
    For loaders with `as_it_is` for their collation.
    """

    def __init__(self, windows: Windows) -> None:
        assert self.can_read(windows) and windows.latents is not None
        self.windows, self.latents = windows, windows.latents
        self._known: dict[int, _Files] = {}  # where everything lies: a few hundred bytes a clip

    @staticmethod
    def can_read(windows: Windows) -> bool:
        """Whether they are what the diffusion model trains on."""
        return windows.parts == set(TRAINING) and windows.rule.source == "each" and windows.picture is None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, draws: Sequence[int | Draw]) -> Window:
        places = [self._place(draw) for draw in draws]
        first = places[0].files
        z = torch.float16, first.latents.shape[1:]
        sizes = {
            "frame": (torch.int64, ()),
            "reference_frame": (torch.int64, ()),
            "audio": (torch.float32, (sum(self.windows.smoothing) + 1, WINDOW, *first.features.shape[1:])),
            "landmarks": (torch.float32, (len(POINTS), 2)),
            "z": z,
            "z_masked": z,
            "z_reference": z,
        }
        batch = PackedBatch.empty(len(places), sizes)
        arrays = {key: value.numpy() for key, value in batch.items()}
        arrays["frame"][:] = [place.frame for place in places]
        arrays["reference_frame"][:] = [place.reference for place in places]
        self._read_latents(arrays, places)
        self._read_landmarks(arrays["landmarks"], places)
        self._read_audio(arrays["audio"], places)
        batch["clip"] = [place.files.clip.name for place in places]
        return batch  # type: ignore[return-value]

    def _place(self, draw: int | Draw) -> _Place:
        number, frame, epoch = self.windows.place(draw)
        files = self._files(number)
        clip = files.clip
        reference = self.windows.rule.draw(frame, clip.frames, self.windows.random(clip, frame, epoch))
        return _Place(files, frame, reference)

    def _read_latents(self, arrays: dict[str, np.ndarray], places: list[_Place]) -> None:
        rows = [
            (place.files.latents, place.frame, place.files.latents.frames + place.frame, place.reference)
            for place in places
        ]
        for latents, *wanted in rows:
            for row in wanted:
                latents.expect(row)
        z = [arrays[key] for key in ("z", "z_masked", "z_reference")]
        for number, (latents, *wanted) in enumerate(rows):
            if latents.shape[1:] != z[0].shape[1:]:
                raise UserError(
                    f"{latents.path}: latents {latents.shape[1:]}, other clips have {z[0].shape[1:]}; remove it and "
                    "run cache-latents"
                )
            for array, row in zip(z, wanted, strict=True):
                latents.read_into(array[number : number + 1], row)

    def _read_landmarks(self, target: np.ndarray, places: list[_Place]) -> None:
        for number, (files, frame, _) in enumerate(places):
            target[number] = files.landmarks.read(frame, frame + 1)[0, POINTS]

    def _read_audio(self, target: np.ndarray, places: list[_Place]) -> None:
        """As `smoothing_windows` cuts them: neighbouring windows share most of their steps, which are read once."""
        (before, _), (count, seen, _, channels) = self.windows.smoothing, target.shape
        steps = np.zeros((count, STEPS_PER_FRAME * (seen - 1) + WINDOW, channels), np.float32)
        for number, (files, frame, _) in enumerate(places):
            start = STEPS_PER_FRAME * (frame - before) - WINDOW // 2
            first, last = max(start, 0), min(start + steps.shape[1], len(files.features) - 1)
            steps[number, first - start : last - start] = files.features.read(first, last)
        batch, step, channel = steps.strides
        target[:] = as_strided(steps, target.shape, (batch, STEPS_PER_FRAME * step, step, channel))
        frames = np.array([place.frame for place in places])[:, None] + np.arange(-before, seen - before)
        ends = np.array([place.files.clip.frames for place in places])[:, None]
        target[(frames < 0) | (frames >= ends)] = 0

    def _files(self, number: int) -> _Files:
        if number not in self._known:
            kind = self.windows.features
            assert kind is not None
            self._known[number] = _Files.of(self.windows.clips[number], self.latents, kind)
        return self._known[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}


class PackedBatch(dict):
    """Tensors that share one piece of memory, so that a process hands over one piece a batch, and not one a tensor."""

    memory: torch.Tensor

    @classmethod
    def empty(cls, count: int, rows: dict[str, Row]) -> "PackedBatch":
        """Tensors of `count` rows, not filled; in shared memory in a loader's process.

        Args:
            rows: the type and shape of a row of each, types with larger numbers first.
        """
        layout = {key: (kind, (count, *shape)) for key, (kind, shape) in rows.items()}
        total = sum(_bytes(kind, shape) for kind, shape in layout.values())
        memory = torch.empty(total if get_worker_info() is None else 0, dtype=torch.uint8)
        if get_worker_info() is not None:
            memory = memory.new(memory.untyped_storage()._new_shared(total))  # as torch's own collation does
        batch = cls(_unpack(memory, layout))
        batch.memory = memory
        return batch

    def __reduce__(self):
        layout = {key: (value.dtype, value.shape) for key, value in self.items() if torch.is_tensor(value)}
        return _unpack, (self.memory, layout, {key: value for key, value in self.items() if key not in layout})


def _unpack(memory: torch.Tensor, layout: dict[str, Row], rest: dict[str, Any] | None = None) -> dict[str, Any]:
    batch, start = dict(rest or {}), 0
    for key, (kind, shape) in layout.items():
        end = start + _bytes(kind, shape)
        batch[key] = memory[start:end].view(kind).view(shape)
        start = end
    return batch


def _bytes(kind: torch.dtype, shape: tuple[int, ...]) -> int:
    return kind.itemsize * math.prod(shape)


def as_it_is(batch: Any) -> Any:
    """For batches that need no collation."""
    return batch


def to_network_precision(batch: Any) -> Any:
    """Latents as they came from the cache, in the type of the other inputs."""
    if not isinstance(batch, dict) or "z" not in batch:
        return batch
    kind = batch["audio"].dtype
    return {key: value.to(kind) if key.startswith("z") else value for key, value in batch.items()}
