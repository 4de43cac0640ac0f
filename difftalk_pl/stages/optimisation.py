"""The learning rate over time, the same for both stages."""

import math
from typing import Literal

import lightning as L

from difftalk_pl.errors import UserError

Decay = Literal["constant", "cosine"]


def total_steps(trainer: L.Trainer, decay: Decay) -> int:
    """Steps of the whole run; 0 where only time bounds it. Raises UserError where a decay would need to know."""
    total = trainer.estimated_stepping_batches
    if not math.isinf(total):
        return int(total)
    if decay != "constant":
        raise UserError(f"decay {decay}: the run has no last step; set trainer.max_steps or trainer.max_epochs")
    return 0


def learning_rate_factor(step: int, decay: Decay, warmup: int, total: int) -> float:
    """Linear warm-up over `warmup` steps, then constant or a half cosine that reaches zero at step `total`."""
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant" or total <= warmup:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1.0)))
