"""The learning rate over time, the same for both stages."""

import math
from typing import Literal

Decay = Literal["constant", "cosine"]


def learning_rate_factor(step: int, decay: Decay, warmup: int, total: int) -> float:
    """Linear warm-up over `warmup` steps, then constant or a half cosine that reaches zero at step `total`."""
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant" or total <= warmup:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1.0)))
