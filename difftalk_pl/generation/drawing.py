"""Clips drawn frame by frame: what animate pastes into videos and predict writes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from difftalk_pl.data.dataset import WindowDataset
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.generation.consistency import Memory
from difftalk_pl.generation.sampler import Generator


class Square(NamedTuple):
    """A drawn frame: its number, (S, S, 3) uint8 as generated and as it was, (S, S) bool where it was hidden."""

    frame: int
    generated: np.ndarray
    true: np.ndarray
    mask: np.ndarray


def draw(
    generator: Generator,
    windows: WindowDataset,
    shots: Iterable[Sequence[int]],
    device: torch.device,
    batch_size: int = 16,
    workers: int = 0,
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[Square]:
    """The windows with these numbers, of one clip and in their order; memory holds a batch.

    Args:
        shots: numbers of frames; no frame sees one of another shot.
        context: precision in which to generate.

    Raises:
        UserError: a frame cannot be read, or the model gives numbers that are not finite.
    """
    for frames in shots if generator.sampler.sequential else [[frame for shot in shots for frame in shot]]:
        loader = DataLoader(windows, batch_size, sampler=frames, num_workers=workers)  # type: ignore[arg-type]
        yield from _draw(generator, loader, device, context)


def _draw(
    generator: Generator, loader: Iterable[Any], device: torch.device, context: Callable[[], AbstractContextManager]
) -> Iterator[Square]:
    memory = Memory()
    for batch in _timed(generator, loader):
        moved = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        with context():
            drawn = generator(moved, memory)  # type: ignore[arg-type]
        if not drawn.isfinite().all():
            raise UserError(f"the model gives numbers that are not finite, from frame {int(batch['frame'][0])}")
        with generator.clock("decode"):
            generated = to_pixels(drawn)
        masks = batch["mask"][:, 0].numpy() > 0.5
        yield from map(Square, batch["frame"].tolist(), generated, to_pixels(batch["image"]), masks)


def _timed(generator: Generator, loader: Iterable[Any]) -> Iterator[Any]:
    iterator = iter(loader)
    while True:
        with generator.clock("load"):
            try:
                batch = next(iterator, None)
            except (UserError, OSError) as error:
                raise UserError(reason_of(error)) from error
        if batch is None:
            return
        yield batch
