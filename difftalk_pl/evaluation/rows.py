"""Rows of numbers that are kept until all processes have reported, for measures that are no mean over frames."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class RowMetric(Metric):
    """Keeps tables of rows and joins those of all processes, of one without any update as well.

    torchmetrics joins lists of tensors, and sends for an empty list a vector of float32, which does not fit the float64
    matrix of another process. So every list begins with a table of no rows.

    Args:
        columns: how many columns each table has, by the name of its state.
    """

    full_state_update = False

    def __init__(self, columns: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._columns = dict(columns)
        for name in columns:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._begin()

    def reset(self) -> None:
        super().reset()
        self._begin()

    def keep(self, name: str, rows: Tensor) -> None:
        """Add (N, columns) to a table."""
        getattr(self, name).append(rows.to(self.device, torch.float64))

    def table(self, name: str) -> Tensor:
        """All rows of one table, (N, columns) float64, in the order of the processes."""
        kept = getattr(self, name)
        return torch.cat(kept) if isinstance(kept, list) else kept

    def _begin(self) -> None:
        for name, columns in self._columns.items():
            self.keep(name, torch.zeros(0, columns))
