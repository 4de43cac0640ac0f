"""The frames of one clip, generated one after another in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from difftalk_pl.data.dataset import WindowDataset
from difftalk_pl.data.pixels import to_pixels
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.generation.sampler import Generator, PreviousFrames


class Square(NamedTuple):
    """A generated frame: its number, (S, S, 3) uint8 as generated and as it was, (S, S) bool where it was hidden."""

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
) -> Iterator[Square]:
    """Generate windows of one clip in their order.

    Args:
        shots: numbers of frames; no frame depends on one of another shot.

    Raises:
        UserError: a frame cannot be read, or the model gives numbers that are not finite.
    """
    for frames in shots if generator.sampler.sequential else [[frame for shot in shots for frame in shot]]:
        previous: PreviousFrames = {}
        try:
            for batch in DataLoader(windows, batch_size, sampler=frames, num_workers=workers):  # type: ignore[arg-type]
                moved = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
                drawn = generator(moved, previous)  # type: ignore[arg-type]
                if not drawn.isfinite().all():
                    raise UserError(f"the model gives numbers that are not finite, from frame {int(batch['frame'][0])}")
                masks = batch["mask"][:, 0].numpy() > 0.5
                yield from map(Square, batch["frame"].tolist(), to_pixels(drawn), to_pixels(batch["image"]), masks)
        except (UserError, OSError) as error:
            raise UserError(reason_of(error)) from error
