"""Temporal consistency: the previous frame of every clip, and the noise that frames start from."""

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
    """Settings that reduce flicker of the mouth; docs/sampling.md shows their effect. Not in the paper.

    Args:
        noise: starting noise: shared (the same for all frames), correlated (changes slowly) or independent.
        correlation: frames after which correlated noise is independent.
        start: share of the noise schedule at which a frame starts, from the latent of the previous frame; 1 starts
            from noise alone, 0.5 takes half of the steps.
        filter: share of the previous frame in every latent, 0 for none.
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


class PreviousFrame(NamedTuple):
    """The last generated frame of a clip: its number, latent (3, h, w) and picture (3, H, W)."""

    frame: int
    z: Tensor
    image: Tensor


@dataclass
class GenerationState:
    """The previous frames of the clips that are being generated, by name; `of` has a state for each method."""

    last: dict[str, PreviousFrame] = field(default_factory=dict)
    methods: "dict[str, GenerationState]" = field(default_factory=dict)

    def before(self, clip: str, frame: int) -> PreviousFrame | None:
        """Return the frame right before this one; None at a clip's beginning and after a gap."""
        previous = self.last.get(clip)
        return previous if previous is not None and previous.frame == frame - 1 else None

    def of(self, method: str) -> "GenerationState":
        return self.methods.setdefault(method, GenerationState())


def sequential_groups(clips: Sequence[str]) -> Iterator[list[int]]:
    """Yield rows of a batch that can be generated together where a frame needs the previous one: the first frame of
    every clip, then the second of every clip, and so on."""
    count: dict[str, int] = {}
    groups: dict[int, list[int]] = {}
    for row, clip in enumerate(clips):
        groups.setdefault(count.setdefault(clip, 0), []).append(row)
        count[clip] += 1
    yield from groups.values()


def frame_noise(shape: Sequence[int], frames: Sequence[int], seed: int, config: Steadiness) -> Tensor:
    """Return noise (B, 3, h, w) of unit variance, a function of (seed, frame) alone: no frame depends on its batch."""
    if config.noise == "shared":
        return _noise(shape, seed).expand(len(frames), *shape).clone()
    if config.noise == "independent":
        return torch.stack([_noise(shape, seed, frame) for frame in frames])
    noises = []
    for knot, rest in (divmod(frame, config.correlation) for frame in frames):  # on the arc between two noises
        angle = rest / config.correlation * np.pi / 2
        noises.append(np.cos(angle) * _noise(shape, seed, knot) + np.sin(angle) * _noise(shape, seed, knot + 1))
    return torch.stack(noises)


def _noise(shape: Sequence[int], seed: int, number: int | None = None) -> Tensor:
    if number is not None:
        seed = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
