"""What one frame hands to the next while a clip is generated, and the noise that frames start from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from difftalk_pl.errors import UserError

NoiseKind = Literal["shared", "correlated", "independent"]


@dataclass
class Steadiness:
    """Ways to keep a mouth from trembling; docs/sampling.md has what each one does to the measures. Not in the paper.

    Args:
        noise: what frames start from: shared (the same for all), correlated (changes slowly) or independent.
        correlation: frames over which correlated noise becomes another.
        start: share of the noise schedule at which a frame starts, from the latent of the frame before it; 1 starts
            from noise alone, 0.5 takes half of the steps.
        filter: share of the frame before in every latent, 0 for none.
    """

    noise: NoiseKind = "shared"
    correlation: int = 12
    start: float = 1.0
    filter: float = 0.0

    def __post_init__(self) -> None:
        if self.noise not in get_args(NoiseKind):
            raise UserError(f"steadiness.noise {self.noise!r}: expected {', '.join(get_args(NoiseKind))}")
        if self.correlation < 1 or not 0 < self.start <= 1 or not 0 <= self.filter < 1:
            raise UserError(
                f"steadiness: correlation {self.correlation}, start {self.start:g}, filter {self.filter:g}: expected 1 "
                "or more, above 0 and up to 1, 0 to below 1"
            )


class Past(NamedTuple):
    """The frame of a clip that was generated last: its number, latent (3, h, w) and picture (3, H, W)."""

    frame: int
    z: Tensor
    image: Tensor


@dataclass
class Memory:
    """The last frames of the clips that are being generated, by name. One for each method that generates."""

    last: dict[str, Past] = field(default_factory=dict)
    of: "dict[str, Memory]" = field(default_factory=dict)

    def before(self, clip: str, frame: int) -> Past | None:
        """The frame right before this one; None at a clip's beginning and after a gap."""
        past = self.last.get(clip)
        return past if past is not None and past.frame == frame - 1 else None

    def method(self, name: str) -> "Memory":
        return self.of.setdefault(name, Memory())


def rounds(clips: Sequence[str]) -> Iterator[list[int]]:
    """Rows of a batch that can be drawn together when a frame needs the one before it: the first of every clip, then
    the second of every clip, and so on."""
    turn: dict[str, int] = {}
    found: dict[int, list[int]] = {}
    for row, clip in enumerate(clips):
        found.setdefault(turn.setdefault(clip, 0), []).append(row)
        turn[clip] += 1
    yield from found.values()


def frame_noise(shape: Sequence[int], frames: Sequence[int], seed: int, config: Steadiness) -> Tensor:
    """(B, 3, h, w) of unit variance, a function of (seed, frame) alone, so that no frame depends on its batch."""
    if config.noise == "shared":
        return _noise(shape, seed, None).expand(len(frames), *shape).clone()
    if config.noise == "independent":
        return torch.stack([_noise(shape, seed, frame) for frame in frames])
    return torch.stack([_between(shape, seed, frame / config.correlation) for frame in frames])


def _between(shape: Sequence[int], seed: int, place: float) -> Tensor:
    """On the arc between two independent noises."""
    knot = int(place)
    angle = (place - knot) * np.pi / 2
    return np.cos(angle) * _noise(shape, seed, knot) + np.sin(angle) * _noise(shape, seed, knot + 1)


def _noise(shape: Sequence[int], seed: int, number: int | None) -> Tensor:
    if number is not None:
        seed = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
