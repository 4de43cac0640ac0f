"""DDIM as published with latent diffusion, for any number of steps and in double precision where asked."""

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

OFFSET = 1  # the published sampler never visits t = 0


class DDIM(DDIMScheduler):
    """diffusers' DDIM, changed in two points where it goes wrong without saying so.

    - Steps that do not divide the training steps T: the stock scheduler then starts too low (600 of 1000 steps start
      at t = 600, yet from pure noise) or past the end (1000 steps: t = 1000). Here the steps always span T.
    - The schedule is kept in float64; single precision costs about 1e-5 of accuracy over 200 steps.

    For divisors of T below T the timesteps are those of the published sampler: 1, 1 + T/S, 1 + 2T/S, ...
    As published, the last step ends at the noise of t = 0 and not at zero noise; `set_alpha_to_one` ends at zero.
    With eps the predicted noise and a = alphas_cumprod, going from t to s (Song et al., equation 12):
        x0 = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t)
        x_s = sqrt(a_s) x0 + sqrt(1 - a_s - sigma^2) eps + sigma noise
        sigma = eta sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s)
    """

    def __init__(self, betas: Tensor, set_alpha_to_one: bool = False) -> None:
        super().__init__(
            num_train_timesteps=len(betas), trained_betas=betas.tolist(), clip_sample=False, steps_offset=OFFSET
        )
        self.betas = betas.double()
        self.alphas = 1 - self.betas
        self.alphas_cumprod = self.alphas.cumprod(0)
        self.final_alpha_cumprod = self.alphas_cumprod.new_ones(()) if set_alpha_to_one else self.alphas_cumprod[0]

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        total = len(self.betas)
        ascending = torch.arange(num_inference_steps) * total // num_inference_steps
        ascending += min(OFFSET, total - 1 - int(ascending[-1]))
        self.num_inference_steps = num_inference_steps  # type: ignore[assignment]
        self.timesteps = ascending.flip(0).to(device)
        self._previous = dict(zip(ascending[1:].tolist(), self.alphas_cumprod[ascending[:-1]], strict=True))

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        # the stock method would move the float64 table to the device, which not every device can hold
        alpha = self.alphas_cumprod[timesteps.cpu()].view(-1, *[1] * (original_samples.ndim - 1))
        signal, spread = (scale.to(original_samples) for scale in (alpha.sqrt(), (1 - alpha).sqrt()))
        return signal * original_samples + spread * noise

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> DDIMSchedulerOutput:
        """One step from `timestep` to the next lower one of `set_timesteps`."""
        here = self.alphas_cumprod[int(timestep)]
        there = self._previous.get(int(timestep), self.final_alpha_cumprod)
        x_start = (sample - (1 - here).sqrt().item() * model_output) / here.sqrt().item()
        sigma = eta * ((1 - there) / (1 - here) * (1 - here / there)).clamp(min=0).sqrt()
        previous = there.sqrt().item() * x_start + (1 - there - sigma**2).sqrt().item() * model_output
        if eta > 0:
            fresh = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
            previous = previous + sigma.item() * fresh
        return DDIMSchedulerOutput(prev_sample=previous, pred_original_sample=x_start)
