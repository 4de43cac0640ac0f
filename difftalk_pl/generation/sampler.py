"""From windows to finished frames: condition, masked sampling, decoding, composite."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from difftalk_pl.data.dataset import Window
from difftalk_pl.data.references import ReferencePolicy
from difftalk_pl.errors import UserError
from difftalk_pl.generation.consistency import (
    GenerationState,
    PreviousFrame,
    Steadiness,
    frame_noise,
    sequential_groups,
)
from difftalk_pl.models.conditioning import Condition, without_sound
from difftalk_pl.models.denoiser import DiffTalk
from difftalk_pl.models.schedule import NoiseSchedule, sample
from difftalk_pl.training.codec import LatentCodec


@dataclass
class SamplerConfig:
    """How a trained model generates.

    Args:
        name: ddim, or any scheduler of diffusers by name.
        steps: of sampling.
        val_steps: of sampling in the validations of fit; by default `steps`.
        eta: of DDIM; 0 is deterministic.
        seed: of the starting noise and, with animate, of references.
        known: what stands outside the mask while sampling: latents of the masked frame, which cannot have seen the
            mouth; of the true frame, as released; or none, so that only the final composite keeps the surroundings.
        margin: latent cells by which the generated region is larger than the mask.
        guidance: weight of classifier-free guidance on the audio; 1 is off. Needs a model that was trained with
            audio_dropout, and takes twice the time.
        reference: [progressive:]SOURCE, where SOURCE is each (a frame of its own for every target, by seed), random
            (one for the clip), widest (the one with the widest open mouth) or a picture's file. Progressive takes the
            frame just generated from the second frame on; paper, table 2.
        steadiness: temporal consistency.
    """

    name: str = "ddim"
    steps: int = 50
    val_steps: int | None = None
    eta: float = 0.0
    seed: int = 0
    known: Literal["masked", "true", "none"] = "masked"
    margin: int = 1
    guidance: float = 1.0
    reference: str = "each"
    steadiness: Steadiness = field(default_factory=Steadiness)

    @property
    def policy(self) -> ReferencePolicy:
        return ReferencePolicy.parse(self.reference)

    @property
    def sequential(self) -> bool:
        """Whether a frame needs the previous one."""
        return self.policy.progressive or self.steadiness.start < 1 or self.steadiness.filter > 0


class Generator:
    """Generates the masked region of windows. Deterministic: a frame does not depend on the batch it is in.

    Args:
        audio_dropout: with which the model was trained.

    Raises:
        UserError: guidance that the model was not trained for.
    """

    def __init__(
        self,
        difftalk: DiffTalk,
        codec: LatentCodec,
        schedule: NoiseSchedule,
        sampler: SamplerConfig,
        audio_dropout: float = 0.0,
    ) -> None:
        self.difftalk, self.codec, self.schedule, self.sampler = difftalk, codec, schedule, sampler
        if sampler.guidance != 1 and not audio_dropout:
            raise UserError(
                f"guidance {sampler.guidance:g}: needs a model trained with model.audio_dropout; leave it at 1"
            )

    @torch.no_grad()
    def __call__(self, window: Window, state: GenerationState | None = None) -> Tensor:
        """Generate a batch: image, masked, reference, mask, audio, landmarks -> (B, 3, H, W) in [-1, 1].

        Outside the mask the result equals `image`. For a sequential sampler the frames of a clip come in their order;
        frames of several clips that alternate are generated together.

        Args:
            state: previous frames, of the batch before; without it every clip begins anew.
        """
        clips, numbers = list(window["clip"]), torch.as_tensor(window["frame"]).tolist()
        if not self.sampler.sequential:
            return self._draw(window, [None] * len(clips))[0]
        state, frames = state or GenerationState(), torch.empty_like(window["image"])
        for rows in sequential_groups(clips):
            previous = [state.before(clips[row], numbers[row]) for row in rows]
            frames[rows], z = self._draw(_rows(window, rows), previous)
            for place, row in enumerate(rows):
                state.last[clips[row]] = PreviousFrame(numbers[row], z[place], frames[row])
        state.last = {clip: state.last[clip] for clip in clips}  # other clips are finished
        return frames

    def _draw(self, window: Window, previous: list[PreviousFrame | None]) -> tuple[Tensor, Tensor]:
        """Generate frames that do not need each other; returns them and their latents."""
        z_masked, z_reference = self.codec.encode(window["masked"]), self._reference(window, previous)
        known = {"masked": z_masked, "none": None}.get(self.sampler.known)
        known = self.codec.encode(window["image"]) if self.sampler.known == "true" else known
        z = self._denoise(window, z_masked, z_reference, known, previous)
        if share := self.sampler.steadiness.filter:
            z = torch.stack(
                [new if old is None else (1 - share) * new + share * old.z for new, old in zip(z, previous)]
            )
        return composite(self.codec.decode(z), window["image"], window["mask"]), z

    def _reference(self, window: Window, previous: list[PreviousFrame | None]) -> Tensor:
        """Return z of the references; one that all rows share is encoded once."""
        images, numbers = window["reference"], torch.as_tensor(window["reference_frame"])
        if self.sampler.policy.progressive:
            images = torch.stack([image if old is None else old.image for image, old in zip(images, previous)])
        elif len(set(window["clip"])) == 1 and bool((numbers == numbers[0]).all()):
            return self.codec.encode(images[:1]).expand(len(images), -1, -1, -1)
        return self.codec.encode(images)

    def _denoise(
        self,
        window: Window,
        z_masked: Tensor,
        z_reference: Tensor,
        known: Tensor | None,
        previous: list[PreviousFrame | None],
    ) -> Tensor:
        """Sample latents. Rows that start from the previous frame take fewer steps and are sampled on their own."""
        short = [old is not None and self.sampler.steadiness.start < 1 for old in previous]
        z = torch.empty_like(z_masked)
        for from_previous in sorted(set(short)):
            rows = [row for row, one in enumerate(short) if one == from_previous]
            part = _rows(window, rows)
            noise = frame_noise(z.shape[1:], part["frame"].tolist(), self.sampler.seed, self.sampler.steadiness)
            z[rows] = sample(
                partial(self._predict, self._condition(part, z_masked[rows], z_reference[rows])),
                noise.to(z_masked),
                scheduler=self.schedule.scheduler(self.sampler.name),
                steps=self.sampler.steps,
                known=None if known is None else known[rows],
                mask=None if known is None else self.latent_mask(part["mask"]),
                eta=self.sampler.eta,
                generator=torch.Generator(z_masked.device).manual_seed(self.sampler.seed),
                previous=torch.stack([previous[row].z for row in rows]) if from_previous else None,  # type: ignore[union-attr]
                start=self.sampler.steadiness.start,
            )
        return z

    def _condition(self, window: Window, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """Return the condition; with guidance, that without sound is appended along the batch."""
        audio, landmarks = window["audio"], window["landmarks"]
        condition = self.difftalk.condition(audio, landmarks, z_masked, z_reference)
        if self.sampler.guidance == 1:
            return condition
        silent = self.difftalk.condition(without_sound(audio), landmarks, z_masked, z_reference)
        return Condition(*(torch.cat(both) for both in zip(condition, silent)))

    def _predict(self, condition: Condition, z_t: Tensor, t: Tensor) -> Tensor:
        """Predict the noise, in 32 bits: autocast must not round z between the steps.

        With guidance w: eps(silent) + w (eps(sound) - eps(silent)), Ho and Salimans (2022).
        """
        if self.sampler.guidance == 1:
            return self.difftalk(z_t, t, condition).float()
        both = self.difftalk(torch.cat([z_t, z_t]), torch.cat([t, t]), condition).float()
        sound, silent = rearrange(both, "(two b) c h w -> two b c h w", two=2)
        return silent + self.sampler.guidance * (sound - silent)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Return (B, 1, h, w) for a mask (B, 1, H, W): 1 for cells that hold a hidden pixel, and `margin` around."""
        cells = F.max_pool2d(mask, self.codec.factor)
        margin = self.sampler.margin
        return F.max_pool2d(cells, 2 * margin + 1, stride=1, padding=margin) if margin else cells


def composite(generated: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Return the generated picture where mask is 1, and the true one elsewhere, exactly."""
    return torch.where(mask > 0.5, generated, image)


def _rows(window: Any, rows: list[int]) -> Any:
    """Select rows of a batch."""
    if rows == list(range(len(window["clip"]))):
        return window
    return {
        key: value[rows] if torch.is_tensor(value) else [value[row] for row in rows] for key, value in window.items()
    }
