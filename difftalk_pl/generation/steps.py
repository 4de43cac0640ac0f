"""The steps of a LightningModule that generate whole clips."""

from collections import defaultdict
from typing import Any

import lightning as L
from torch import Tensor

from difftalk_pl.generation.sampler import PreviousFrames

GenerationState = defaultdict[str, PreviousFrames]  # by method


class ClipGeneration(L.LightningModule):
    """Generates the clips of a `ClipBatch` in test and predict steps, and in validation steps of the second loader.

    Attributes:
        method: the stage's own among the methods of `generate`.
        methods: all that `generate` may return.
    """

    method: str
    methods: tuple[str, ...]

    def generate(self, window: Any, state: GenerationState, steps: int | None = None) -> dict[str, Tensor]:
        """Return frames (B, 3, H, W) in [-1, 1] by method. `steps`: of sampling, in place of the configured ones."""
        raise NotImplementedError

    def generate_batch(self, batch: Any, steps: int | None = None) -> dict[str, Tensor] | None:
        """Return the frames of a ClipBatch by method, None where it has no frames."""
        return None if batch["window"] is None else self.generate(batch["window"], self.state, steps)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        return self.generate_batch(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        return self.generate_batch(batch)

    def on_test_epoch_start(self) -> None:
        self.state = GenerationState(dict)

    on_validation_epoch_start = on_predict_epoch_start = on_test_epoch_start
