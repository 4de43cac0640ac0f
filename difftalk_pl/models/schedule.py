"""The noise schedule, DDIM as published, and masked sampling with any scheduler of diffusers."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import diffusers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from difftalk_pl.errors import UserError

OFFSET = 1  # the published DDIM never visits t = 0
TRAILING = {"timestep_spacing": "trailing"}  # always starts at the last timestep
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {  # short names, the class of diffusers and its options
    "ddpm": ("DDPMScheduler", TRAILING),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
    "dpm++": ("DPMSolverMultistepScheduler", TRAILING),
    "dpm++sde": ("DPMSolverMultistepScheduler", {**TRAILING, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", TRAILING),
    "deis": ("DEISMultistepScheduler", TRAILING),
    "euler": ("EulerDiscreteScheduler", TRAILING),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", TRAILING),
    "heun": ("HeunDiscreteScheduler", TRAILING),
    "lms": ("LMSDiscreteScheduler", TRAILING),
}


@dataclass
class NoiseSchedule:
    """Betas of the forward process; the defaults are the released ones.

    Args:
        steps: number of timesteps.
        start: first beta.
        end: last beta.
        kind: scaled_linear has evenly spaced square roots of beta (LDM calls it "linear"), linear the betas themselves.
    """

    steps: int = 1000
    start: float = 0.0015
    end: float = 0.0195
    kind: Literal["scaled_linear", "linear"] = "scaled_linear"

    @cached_property
    def betas(self) -> Tensor:
        """(steps,) float64."""
        if self.kind == "linear":
            return torch.linspace(self.start, self.end, self.steps, dtype=torch.float64)
        return torch.linspace(self.start**0.5, self.end**0.5, self.steps, dtype=torch.float64) ** 2

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Remaining share of the signal's variance at every timestep, (steps,) float64."""
        return (1 - self.betas).cumprod(0)

    def add_noise(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return q(z_t | z): z and noise (B, C, h, w), t (B,) in 0 ... steps - 1."""
        return _add_noise(self.alphas_cumprod, z, noise, t)

    def scheduler(self, name: str = "ddim") -> Any:
        """Return a scheduler of this schedule by short name or class of diffusers. Raises UserError for others.

        KDPM2's are refused: within a step they change the noise level, which a mask does not follow.
        """
        if name == "ddim":
            return DDIM(self.betas)
        class_name, preset = SCHEDULERS.get(name, (name, {}))
        accepted = inspect.signature(getattr(diffusers, class_name, object)).parameters
        if "trained_betas" not in accepted or class_name.startswith("KDPM2"):
            raise UserError(
                f"no scheduler {name!r}: choose ddim, {', '.join(SCHEDULERS)}, or a scheduler class of diffusers that "
                "takes trained_betas"
            )
        common = {"num_train_timesteps": self.steps, "trained_betas": self.betas.tolist()}
        if "clip_sample" in accepted:
            common["clip_sample"] = False  # latents are not confined to [-1, 1]
        return getattr(diffusers, class_name)(**{**common, **preset})


def _add_noise(alphas_cumprod: Tensor, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return sqrt(a_t) z + sqrt(1 - a_t) noise; not every device can hold the float64 table."""
    scales = torch.stack([alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()]).to(z)
    signal, spread = scales[:, t].view(2, -1, *[1] * (z.ndim - 1))
    return signal * z + spread * noise


class DDIM(DDIMScheduler):
    """The DDIM of diffusers, with two corrections.

    - Timesteps span the schedule for any number of steps; for divisors of T they are the published 1, 1 + T/S, ...
    - Betas are float64; single precision costs about 1e-5 of accuracy over 200 steps.

    As published, the last step ends at the noise of t = 0.
    With eps the predicted noise and a = alphas_cumprod, going from t to s (Song et al., equation 12):
        x0 = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t)
        x_s = sqrt(a_s) x0 + sqrt(1 - a_s - sigma^2) eps + sigma noise
        sigma = eta sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s)
    """

    def __init__(self, betas: Tensor) -> None:
        super().__init__(num_train_timesteps=len(betas), trained_betas=betas.tolist(), clip_sample=False)
        self.alphas_cumprod = (1 - betas).cumprod(0)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        total = len(self.alphas_cumprod)
        ascending = torch.arange(num_inference_steps) * total // num_inference_steps
        ascending += min(OFFSET, total - 1 - int(ascending[-1]))
        self.timesteps = ascending.flip(0).to(device)
        self._previous = dict(zip(ascending.tolist(), [0, *ascending[:-1].tolist()]))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return _add_noise(self.alphas_cumprod, original_samples, noise, timesteps)

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> DDIMSchedulerOutput:
        """Step from `timestep` to the next lower one of `set_timesteps`."""
        here, there = self.alphas_cumprod[[int(timestep), self._previous[int(timestep)]]]
        x_start = (sample - (1 - here).sqrt().item() * model_output) / here.sqrt().item()
        sigma = eta * ((1 - there) / (1 - here) * (1 - here / there)).clamp(min=0).sqrt()
        previous = there.sqrt().item() * x_start + (1 - there - sigma**2).sqrt().item() * model_output
        if eta > 0:
            fresh = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            previous = previous + sigma.item() * fresh
        return DDIMSchedulerOutput(prev_sample=previous, pred_original_sample=x_start)


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
) -> Tensor:
    """Denoise `noise` (B, C, h, w) in `steps` steps of a `NoiseSchedule.scheduler`.

    Args:
        predict: (z_t, t) -> noise in z_t, with t (B,) and z_t scaled as in training.
        known, mask: latent (B, C, h, w), and mask (B, 1, h, w) with 1 where the latent is generated. Before every step
            the rest is replaced by the known latent at that step's noise level, after the last step by the known
            latent itself. It always gets the starting noise (not in the paper: the published sampler draws fresh).
        eta: 0 deterministic, 1 as random as DDPM, with fresh noise from `generator`; for DDIM only.

    Raises:
        UserError: the scheduler cannot do that.
    """
    accepted = inspect.signature(scheduler.step).parameters
    if eta and "eta" not in accepted:
        raise UserError(f"{type(scheduler).__name__} has no eta: set eta to 0 or use ddim")
    extra = {key: value for key, value in {"eta": eta, "generator": generator}.items() if key in accepted}
    timesteps = _timesteps(scheduler, steps, noise.device)
    z = noise * scheduler.init_noise_sigma
    for t in timesteps:
        if known is not None and mask is not None:
            z = torch.where(mask > 0.5, z, scheduler.add_noise(known, noise, t[None]))
        prediction = predict(scheduler.scale_model_input(z, t), t.expand(len(z)))
        z = scheduler.step(prediction, t, z, **extra).prev_sample
    return z if known is None or mask is None else torch.where(mask > 0.5, z, known)


def _timesteps(scheduler: Any, steps: int, device: torch.device) -> Tensor:
    """Return the timesteps, highest first; some schedulers silently leave the range or start far below its end."""
    total = scheduler.config.num_train_timesteps
    if not 1 <= steps <= total:
        raise UserError(f"steps is {steps}: expected 1 to {total}, the steps of the noise schedule")
    scheduler.set_timesteps(steps, device=device)
    if scheduler.timesteps.min() < 0:  # rounding gives "trailing" one step too many for 62 of 1000 numbers of steps
        scheduler.register_to_config(timestep_spacing="linspace")
        scheduler.set_timesteps(steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # add_noise then takes the noise of the current step, also where t repeats
    highest, lowest = float(scheduler.timesteps.max()), float(scheduler.timesteps.min())
    if lowest < 0 or not total - 1 - total / steps <= highest < total:
        raise UserError(
            f"{type(scheduler).__name__} spreads {steps} steps over t = {lowest:g} to {highest:g} of {total}: "
            f"choose a divisor of {total} below {total}, or another scheduler"
        )
    return scheduler.timesteps
