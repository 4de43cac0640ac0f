"""From noise to a latent, with the part outside a mask held to what is known."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.models.schedule import SCHEDULERS, NoiseSchedule

__all__ = ["SCHEDULERS", "NoiseSchedule", "sample"]

# Its add_noise forgets that every second evaluation lies between two timesteps (diffusers 0.42): off by a whole sigma.
WITHOUT_MASK = ("KDPM2DiscreteScheduler",)
# Begun in the middle, they take a step that looks back to what was left out.
WITHOUT_BEGINNING = ("HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler")


@torch.no_grad()
def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    *,
    scheduler: Any,
    steps: int,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    previous: Tensor | None = None,
    start: float = 1.0,
) -> Tensor:
    """Denoise `noise` (B, C, h, w) in `steps` steps of a `NoiseSchedule.scheduler`.

    predict: (z_t, t) -> noise in z_t, with t (B,); z_t is scaled as in training whatever the scheduler's own scale is.
    known, mask: latent (B, C, h, w) and mask (B, 1, h, w), 1 where the latent is generated. Before every step all else
        is overwritten by the known latent at that step's noise, after the last step by the known latent itself.
        The noise on it is always the starting noise, so without eta the result depends on `noise` alone.
        Not in the paper: the published sampler draws fresh noise for every step.
    eta: 0 deterministic, 1 as random as DDPM; for DDIM only. Fresh noise comes from `generator`.
    previous, start: a latent to begin from, noised as it is after all but this share of the steps, which are left out.
    Raises UserError for a number of steps that the scheduler cannot do, or an eta it does not have.
    """
    if (known is None) != (mask is None):
        raise ValueError("known and mask belong together: give both or none")
    if known is not None and type(scheduler).__name__ in WITHOUT_MASK:
        raise UserError(f"{type(scheduler).__name__} cannot hold a known latent: choose another scheduler")
    timesteps = _start(scheduler, steps, noise.device)
    extra = _step_arguments(scheduler, eta, generator)
    if previous is not None and start < 1 and type(scheduler).__name__ in WITHOUT_BEGINNING:
        raise UserError(f"{type(scheduler).__name__} cannot start in the middle: leave steadiness.start at 1")
    if previous is None or start >= 1:
        z = noise * scheduler.init_noise_sigma
    else:
        timesteps = _last_part(scheduler, timesteps, start)
        z = scheduler.add_noise(previous, noise, timesteps[:1])
    for t in timesteps:
        if known is not None and mask is not None:
            z = _composite(z, scheduler.add_noise(known, noise, t[None]), mask)
        prediction = predict(scheduler.scale_model_input(z, t), t.expand(len(z)))
        z = scheduler.step(prediction, t, z, **extra).prev_sample
    return z if known is None or mask is None else _composite(z, known, mask)


def _last_part(scheduler: Any, timesteps: Tensor, share: float) -> Tensor:
    skipped = len(timesteps) - max(round(share * len(timesteps)), 1)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    return timesteps[skipped:]


def _composite(generated: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask > 0.5, generated, known)


def _start(scheduler: Any, steps: int, device: torch.device) -> Tensor:
    """Timesteps, highest first. Some schedulers leave the range, or start far below its end, without a word."""
    total = scheduler.config.num_train_timesteps
    if not 1 <= steps <= total:
        raise UserError(f"steps is {steps}: expected 1 to {total}, the steps of the noise schedule")
    scheduler.set_timesteps(steps, device=device)
    if scheduler.timesteps.min() < 0:  # rounding gives "trailing" one step too many for 62 of 1000 numbers of steps
        scheduler.register_to_config(timestep_spacing="linspace")
        scheduler.set_timesteps(steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # add_noise then takes the noise of the current step, also where t repeats
    timesteps = scheduler.timesteps
    highest, lowest = float(timesteps.max()), float(timesteps.min())
    if lowest < 0 or not total - 1 - total / steps <= highest < total:
        raise UserError(
            f"{type(scheduler).__name__} spreads {steps} steps over t = {lowest:g} to {highest:g} of {total}: "
            f"choose a divisor of {total} below {total}, or another scheduler"
        )
    return timesteps


def _step_arguments(scheduler: Any, eta: float, generator: torch.Generator | None) -> dict[str, Any]:
    accepted = inspect.signature(scheduler.step).parameters
    if eta and "eta" not in accepted:
        raise UserError(f"{type(scheduler).__name__} has no eta: set eta to 0 or use ddim")
    offered = {"eta": eta, "generator": generator}
    return {key: value for key, value in offered.items() if key in accepted}
