"""AdamW, the learning rate over time, and the stop at numbers that are not finite."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
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


class AdamWTraining(L.LightningModule):
    """Trains all parameters with AdamW, and stops before a step with gradients that are not finite."""

    optimisation: Optimisation

    def configure_optimizers(self):
        settings, total = self.optimisation, total_steps(self.trainer, self.optimisation.decay)
        optimizer = torch.optim.AdamW(self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, settings.decay, settings.warmup_steps, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Replace the settings that a resumed optimizer brings from its checkpoint by the configured ones."""
        schedule: Any = self.lr_schedulers()
        rate = self.optimisation.learning_rate
        schedule.base_lrs = [rate] * len(schedule.base_lrs)
        for group, current in zip(self.optimizers().param_groups, schedule.get_lr()):  # type: ignore[union-attr]
            group.update(initial_lr=rate, lr=current, weight_decay=self.optimisation.weight_decay)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        norm = gradient_norm(self.parameters())
        self.log("train/gradient_norm", norm)
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # float16's scaler leaves out such steps
            stop_unless_finite(self, {"gradient_norm": norm})


def total_steps(trainer: L.Trainer, decay: Decay) -> int:
    """Return the steps of the run, 0 where only time limits it. Raises UserError where a decay needs them."""
    total = trainer.estimated_stepping_batches
    if not math.isinf(total):
        return int(total)
    if decay != "constant":
        raise UserError(f"decay {decay}: the run has no last step; set trainer.max_steps or trainer.max_epochs")
    return 0


def learning_rate_factor(step: int, decay: Decay, warmup: int, total: int) -> float:
    """Rise linearly over `warmup` steps, then stay, or fall as a half cosine that reaches zero at step `total`."""
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant" or total <= warmup:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1.0)))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, ()."""
    return torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


def stop_unless_finite(module: L.LightningModule, values: Mapping[str, Tensor], clips: Iterable[str] = ()) -> None:
    """Raise UserError on all ranks if a value of any rank is not finite. Call it before the optimizer's step."""
    finite = torch.stack([value.detach().float() for value in values.values()]).isfinite()
    if module.trainer.strategy.reduce_boolean_decision(bool(finite.all())):
        return
    found = ", ".join(f"{name} is {float(value)}" for name, value in values.items() if not value.isfinite())
    among = f" with clips {', '.join(sorted(set(clips)))}" if clips else ""
    raise UserError(
        f"step {module.global_step}: {found + among if found else 'not finite on another rank'}. Stopped before the "
        "optimizer's step; last.ckpt can go on. Try a lower learning rate, gradient clipping, bf16-mixed or 32-true"
    )
