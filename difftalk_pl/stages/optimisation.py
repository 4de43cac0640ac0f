"""The learning rate over time, the same for both stages."""

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Decay = Literal["constant", "cosine"]


def learning_rate_schedule(optimizer: Optimizer, decay: Decay, warmup: int, total: int) -> LambdaLR:
    """Linear warm-up over `warmup` steps, then constant or a half cosine that reaches zero at step `total`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if decay == "constant" or total <= warmup:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1.0)))

    return LambdaLR(optimizer, factor)
