"""AdamW and the learning rate over time, the same for all stages."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from difftalk_pl.errors import UserError

Decay = Literal["constant", "cosine"]


@dataclass
class Optimisation:
    """AdamW.

    Args:
        learning_rate: the effective one; nothing multiplies it. Released for stage 2: 6.4e-5 for 8 GPUs with 8 windows
            each.
        weight_decay: of AdamW.
        decay: of the learning rate over the run's max_steps.
        warmup_steps: of the learning rate.
    """

    learning_rate: float = 6.4e-5
    weight_decay: float = 0.01
    decay: Decay = "constant"
    warmup_steps: int = 0

    def configure(self, parameters: Iterable[nn.Parameter], trainer: L.Trainer) -> dict[str, Any]:
        """Optimizer and schedule as Lightning takes them."""
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        total = total_steps(trainer, self.decay)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, self.decay, self.warmup_steps, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def prevail(self, optimizer: Any, schedule: Any) -> None:
        """These settings hold, not those that a resumed optimizer remembers."""
        schedule.base_lrs = [self.learning_rate] * len(schedule.base_lrs)
        for group, rate in zip(optimizer.param_groups, schedule.get_lr()):
            group.update(initial_lr=self.learning_rate, lr=rate, weight_decay=self.weight_decay)


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
