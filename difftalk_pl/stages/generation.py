"""From windows to finished frames: condition, masked sampling, decoding, composite; for test, predict and animate."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from difftalk_pl.data.windows import Window
from difftalk_pl.models.difftalk import DiffTalk
from difftalk_pl.models.sampling import NoiseSchedule, sample
from difftalk_pl.stages.latents import LatentCodec


@dataclass
class SamplerConfig:
    """How a trained model generates.

    Args:
        name: ddim, or any scheduler of diffusers by name.
        steps: of sampling.
        eta: of DDIM; 0 is deterministic.
        seed: of the starting noise, which all frames share.
        known: what stands outside the mask while sampling: latents of the masked frame, which cannot have seen the
            mouth; of the true frame, as released; or nothing, so that only the final composite keeps the surroundings.
        margin: cells by which the generated region is larger than the mask.
    """

    name: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    seed: int = 0
    known: Literal["masked", "true", "none"] = "masked"
    margin: int = 1


class Generator:
    """Draws the hidden region of windows. Deterministic: a frame does not depend on the batch it is in."""

    def __init__(self, difftalk: DiffTalk, codec: LatentCodec, schedule: NoiseSchedule, sampler: SamplerConfig) -> None:
        self.difftalk, self.codec, self.schedule, self.sampler = difftalk, codec, schedule, sampler

    @torch.no_grad()
    def __call__(self, window: Window) -> Tensor:
        """A batch with image, masked, reference, mask, audio, landmarks -> (B, 3, H, W) in [-1, 1].

        Outside the mask the result equals `image`.
        """
        z_masked, z_reference = self.codec.encode(window["masked"]), self.codec.encode(window["reference"])
        condition = self.difftalk.condition(window["audio"], window["landmarks"], z_masked, z_reference)
        mask = self.latent_mask(window["mask"])
        known = {"masked": lambda: z_masked, "true": lambda: self.codec.encode(window["image"]), "none": lambda: None}
        known_latent = known[self.sampler.known]()
        z = sample(
            lambda z_t, t: self.difftalk(z_t, t, condition).float(),  # autocast must not round z between the steps
            self._noise(z_masked),
            scheduler=self.schedule.scheduler(self.sampler.name),
            steps=self.sampler.steps,
            known=known_latent,
            mask=None if known_latent is None else mask,
            eta=self.sampler.eta,
            generator=torch.Generator(z_masked.device).manual_seed(self.sampler.seed),
        )
        return composite(self.codec.decode(z), window["image"], window["mask"])

    def _noise(self, like: Tensor) -> Tensor:
        """One starting noise for all frames: less jitter, and no dependence on batches."""
        generator = torch.Generator().manual_seed(self.sampler.seed)
        noise = torch.randn(like.shape[1:], generator=generator)
        return noise.to(like).expand_as(like).clone()

    def latent_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1, h, w), 1 where a cell covers a hidden pixel or is `margin` cells from such a one."""
        cells = F.max_pool2d(mask, self.codec.factor)
        margin = self.sampler.margin
        return F.max_pool2d(cells, 2 * margin + 1, stride=1, padding=margin) if margin else cells


def composite(generated: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """The generated picture where mask is 1, the true one elsewhere, exactly."""
    return torch.where(mask > 0.5, generated, image)
