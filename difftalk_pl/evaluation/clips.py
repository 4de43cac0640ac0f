"""The scores of clips that several processes have measured, each its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from difftalk_pl.evaluation.rows import RowMetric

Scores = tuple[dict[str, float | None], list[float] | None]  # by measure, and the curve


class ClipTable(RowMetric):
    """Gathers the scores of clips, so that means, intervals and failures can be formed of all of them in one place.

    Args:
        measures: names; every clip has a number or None of each.
        curve_length: places of the curve of a clip, for those that have one.
    """

    def __init__(self, measures: tuple[str, ...], curve_length: int, **kwargs: Any) -> None:
        super().__init__({"rows": 1 + len(measures), "curves": 1 + curve_length}, **kwargs)
        self.measures, self.curve_length = measures, curve_length

    def update(self, clip: int, values: Mapping[str, float | None], curve: Sequence[float] | None) -> None:
        """One clip: its number, its scores, and a curve or None. What is left out of `values` is None.

        Raises:
            ValueError: a score that is no measure of this table, or a curve of another length.
        """
        if unknown := [name for name in values if name not in self.measures]:
            raise ValueError(f"clip {clip}: {unknown} are no measures of this table, which has {list(self.measures)}")
        if curve is not None and len(curve) != self.curve_length:
            raise ValueError(f"clip {clip}: a curve of {len(curve)} places, expected {self.curve_length}")
        numbers = [math.nan if (value := values.get(name)) is None else float(value) for name in self.measures]
        self.keep("rows", torch.tensor([[clip, *numbers]], dtype=torch.float64))
        if curve is not None:
            self.keep("curves", torch.tensor([[clip, *curve]], dtype=torch.float64))

    def compute(self) -> dict[int, Scores]:
        """Scores of every clip by its number, in order; None for nan.

        Raises:
            ValueError: a clip was reported twice, so that it would count twice.
        """
        curves = {int(clip): curve for clip, *curve in self.table("curves").tolist()}
        found: dict[int, Scores] = {}
        for number, *values in sorted(self.table("rows").tolist(), key=lambda row: row[0]):
            if (clip := int(number)) in found:
                raise ValueError(f"clip {clip} was reported twice: every clip belongs to one process")
            known = {name: None if math.isnan(value) else value for name, value in zip(self.measures, values)}
            found[clip] = known, curves.get(clip)
        return found
