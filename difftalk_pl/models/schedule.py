"""How much noise every timestep carries, for training and for every scheduler that samples."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.models.ddim import DDIM

# Short names, the class of diffusers, and what it needs here. "trailing" always starts at the last timestep and sees
# whole timesteps only, whatever the number of steps.
TRAILING = {"timestep_spacing": "trailing"}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
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
    """betas of the forward process; the defaults are the released ones.

    kind: `scaled_linear` has square roots of beta evenly spaced (latent diffusion calls this "linear"),
        `linear` the betas themselves.
    """

    steps: int = 1000
    start: float = 0.0015
    end: float = 0.0195
    kind: Literal["scaled_linear", "linear"] = "scaled_linear"

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.start <= self.end < 1:
            raise UserError(
                f"schedule.steps {self.steps}, start {self.start}, end {self.end}: expected 1 step or more and "
                "0 < start <= end < 1"
            )

    @cached_property
    def betas(self) -> Tensor:
        """(steps,) float64."""
        if self.kind == "scaled_linear":
            return torch.linspace(self.start**0.5, self.end**0.5, self.steps, dtype=torch.float64) ** 2
        if self.kind == "linear":
            return torch.linspace(self.start, self.end, self.steps, dtype=torch.float64)
        raise ValueError(f"kind of noise schedule is {self.kind!r}: expected 'scaled_linear' or 'linear'")

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """Share of the signal's variance that is left at every timestep, (steps,) float64."""
        return (1 - self.betas).cumprod(0)

    def add_noise(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """q(z_t | z): z and noise (B, C, h, w), t (B,) in 0 ... steps - 1."""
        scales = torch.stack([self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt()]).to(z.dtype)
        signal, spread = scales.to(z.device)[:, t].view(2, -1, *[1] * (z.ndim - 1))
        return signal * z + spread * noise

    def scheduler(self, name: str = "ddim", **options: Any) -> Any:
        """A scheduler of this schedule, by short name or by the name of its class in diffusers.

        options go to its constructor. Raises UserError for a name or an option that does not exist.
        """
        if name == "ddim":
            return _construct(DDIM, {"betas": self.betas}, options, name)
        class_name, preset = SCHEDULERS.get(name, (name, {}))
        kind = _scheduler_class(class_name)
        accepted = inspect.signature(kind).parameters
        if "trained_betas" not in accepted:
            raise UserError(f"scheduler {name!r} cannot use this noise schedule: choose one of {_names()}")
        common = {
            "num_train_timesteps": self.steps,
            "trained_betas": self.betas.tolist(),
            "clip_sample": False,  # latents are not confined to [-1, 1]
        }
        given = {key: value for key, value in common.items() if key in accepted}
        return _construct(kind, given, {**preset, **options}, name)


def _construct(kind: type, given: dict[str, Any], options: dict[str, Any], name: str) -> Any:
    accepted = [key for key in inspect.signature(kind).parameters if key != "betas"]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise UserError(f"scheduler {name!r} has no option {unknown[0]!r}: it has {', '.join(sorted(accepted))}")
    return kind(**{**given, **options})


def _scheduler_class(name: str) -> type:
    import diffusers.schedulers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    kind = getattr(diffusers.schedulers, name, None)
    if isinstance(kind, type) and issubclass(kind, SchedulerMixin):
        return kind
    raise UserError(f"no scheduler {name!r}: choose one of {_names()}, or the name of a scheduler class of diffusers")


def _names() -> str:
    return ", ".join(("ddim", *SCHEDULERS))
