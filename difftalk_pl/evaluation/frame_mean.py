"""Means over the frames of a set that arrive a chunk at a time, in whatever process."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class FrameMean(Metric):
    """The mean over frames of a number that every frame has. Subclasses give it to `add`.

    Sums are float64, so that the order of chunks and processes does not show. `compute` is infinite or nan where one
    of the frames is, and nan where nothing was added.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, values: Tensor) -> None:
        """A number of every frame, (B,)."""
        self.total += values.double().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        return self.total / self.count
