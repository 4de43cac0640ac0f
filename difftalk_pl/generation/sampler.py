"""From windows to finished frames: condition, masked sampling, decoding, composite; for test, predict and animate."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from difftalk_pl.generation.consistency import Memory, Past, Steadiness, frame_noise, rounds
from difftalk_pl.models.conditioning import Condition, without_sound
from difftalk_pl.models.denoiser import DiffTalk
from difftalk_pl.models.schedule import NoiseSchedule, sample
from difftalk_pl.training.codec import LatentCodec

Clock = Callable[[str], AbstractContextManager]  # times what happens within, under a name


def no_clock(stage: str) -> AbstractContextManager:
    """For who does not want to know."""
    return nullcontext()


@dataclass
class SamplerConfig:
    """How a trained model generates.

    Args:
        name: ddim, or any scheduler of diffusers by name.
        steps: of sampling.
        eta: of DDIM; 0 is deterministic.
        seed: of the starting noise and, with animate, of references.
        known: what stands outside the mask while sampling: latents of the masked frame, which cannot have seen the
            mouth; of the true frame, as released; or nothing, so that only the final composite keeps the surroundings.
        margin: cells by which the generated region is larger than the mask.
        guidance: how much further than the conditional prediction to go, away from the one without sound; 1 is off.
            Needs a model that was trained with audio_dropout, and takes twice the time.
        reference: [progressive:]SOURCE, where SOURCE is each (a frame of its own for every target, by seed), random
            (one for the clip), widest (the one with the widest open mouth) or a picture's file. Progressive takes the
            frame just generated from the second frame on; paper, table 2.
        steadiness: what frames share.
    """

    name: str = "ddim"
    steps: int = 50
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
        """Whether a frame needs the one before it."""
        return self.policy.progressive or self.steadiness.start < 1 or self.steadiness.filter > 0


class Generator:
    """Draws the hidden region of windows. Deterministic: a frame does not depend on the batch it is in.

    Args:
        audio_dropout: with which the model was trained.
        clock: told what takes time: encode, denoise, decode.

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
        clock: Clock = no_clock,
    ) -> None:
        self.difftalk, self.codec, self.schedule, self.sampler = difftalk, codec, schedule, sampler
        self.clock, self.policy = clock, sampler.policy
        if sampler.guidance != 1 and not audio_dropout:
            raise UserError(
                f"guidance {sampler.guidance:g}: the model was never trained without sound; leave it at 1, or train "
                "with model.audio_dropout 0.1"
            )

    @torch.no_grad()
    def __call__(self, window: Window, memory: Memory | None = None) -> Tensor:
        """A batch with image, masked, reference, mask, audio, landmarks -> (B, 3, H, W) in [-1, 1].

        Outside the mask the result equals `image`. Where frames need the ones before them, those of a clip come in
        their order; frames of several clips in turn are drawn together.

        Args:
            memory: of the batches before; without it, a batch begins its clips anew.
        """
        memory = Memory() if memory is None else memory
        if not self.sampler.sequential:
            return self._draw(window, memory)
        frames = torch.empty_like(window["image"])
        for rows in rounds(_places(window)[0]):
            frames[rows] = self._draw(_rows(window, rows), memory)
        return frames

    def _draw(self, window: Window, memory: Memory) -> Tensor:
        """Frames of different clips, or frames that need no others."""
        clips, numbers = _places(window)
        past = [memory.before(clip, frame) for clip, frame in zip(clips, numbers)]
        with self.clock("encode"):
            z_masked, z_reference = self.codec.encode(window["masked"]), self._reference(window, past)
            known = self._known(window, z_masked)
        with self.clock("denoise"):
            z = self._denoise(window, z_masked, z_reference, known, past)
        z = self._filtered(z, past)
        with self.clock("decode"):
            frames = composite(self.codec.decode(z), window["image"], window["mask"])
        for row, (clip, frame) in enumerate(zip(clips, numbers) if self.sampler.sequential else ()):
            memory.last[clip] = Past(frame, z[row], frames[row])
        return frames

    def _reference(self, window: Window, past: list[Past | None]) -> Tensor:
        """z of the references; one that all rows share is encoded once."""
        images = window["reference"]
        if self.policy.progressive:
            images = torch.stack([images[row] if one is None else one.image for row, one in enumerate(past)])
        elif _one_reference(window):
            return self.codec.encode(images[:1]).expand(len(images), -1, -1, -1)
        return self.codec.encode(images)

    def _known(self, window: Window, z_masked: Tensor) -> Tensor | None:
        if self.sampler.known == "true":
            return self.codec.encode(window["image"])
        return z_masked if self.sampler.known == "masked" else None

    def _denoise(
        self,
        window: Window,
        z_masked: Tensor,
        z_reference: Tensor,
        known: Tensor | None,
        past: list[Past | None],
    ) -> Tensor:
        """Rows that start from the frame before take fewer steps than the others, and so their own turn."""
        short = [one is not None and self.sampler.steadiness.start < 1 for one in past]
        z = torch.empty_like(z_masked)
        for going_on in sorted(set(short)):
            rows = [row for row, one in enumerate(short) if one == going_on]
            part = _rows(window, rows)
            predict = partial(self._predict, self._condition(part, z_masked[rows], z_reference[rows]))
            z[rows] = sample(
                predict,
                self._noise(part, z_masked),
                scheduler=self.schedule.scheduler(self.sampler.name),
                steps=self.sampler.steps,
                known=None if known is None else known[rows],
                mask=None if known is None else self.latent_mask(part["mask"]),
                eta=self.sampler.eta,
                generator=torch.Generator(z_masked.device).manual_seed(self.sampler.seed),
                previous=torch.stack([past[row].z for row in rows]) if going_on else None,  # type: ignore[union-attr]
                start=self.sampler.steadiness.start,
            )
        return z

    def _condition(self, window: Window, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """With guidance, that without sound comes after the usual one."""
        audio, landmarks = window["audio"], window["landmarks"]
        condition = self.difftalk.condition(audio, landmarks, z_masked, z_reference)
        if self.sampler.guidance == 1:
            return condition
        silent = self.difftalk.condition(without_sound(audio), landmarks, z_masked, z_reference)
        return Condition(*(torch.cat(both) for both in zip(condition, silent)))

    def _predict(self, condition: Condition, z_t: Tensor, t: Tensor) -> Tensor:
        """The noise; in 32 bits, since autocast must not round z between the steps.

        With guidance w: eps(silent) + w (eps(sound) - eps(silent)), Ho and Salimans (2022).
        """
        if self.sampler.guidance == 1:
            return self.difftalk(z_t, t, condition).float()
        both = self.difftalk(torch.cat([z_t, z_t]), torch.cat([t, t]), condition).float()
        sound, silent = rearrange(both, "(two b) c h w -> two b c h w", two=2)
        return silent + self.sampler.guidance * (sound - silent)

    def _noise(self, window: Window, like: Tensor) -> Tensor:
        return frame_noise(like.shape[1:], _places(window)[1], self.sampler.seed, self.sampler.steadiness).to(like)

    def _filtered(self, z: Tensor, past: list[Past | None]) -> Tensor:
        share = self.sampler.steadiness.filter
        if not share:
            return z
        return torch.stack([new if one is None else (1 - share) * new + share * one.z for new, one in zip(z, past)])

    def latent_mask(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1, h, w), 1 where a cell covers a hidden pixel or is `margin` cells from such a one."""
        cells = F.max_pool2d(mask, self.codec.factor)
        margin = self.sampler.margin
        return F.max_pool2d(cells, 2 * margin + 1, stride=1, padding=margin) if margin else cells


def composite(generated: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """The generated picture where mask is 1, the true one elsewhere, exactly."""
    return torch.where(mask > 0.5, generated, image)


def _places(window: Any) -> tuple[list[str], list[int]]:
    """The clips and the numbers of a batch's frames."""
    return list(window["clip"]), [int(frame) for frame in window["frame"]]


def _one_reference(window: Any) -> bool:
    """Whether all rows of a batch show one reference."""
    numbers = window["reference_frame"]
    return len(set(window["clip"])) == 1 and bool((numbers == numbers[0]).all())


def _rows(window: Any, rows: list[int]) -> Any:
    """Some rows of a batch."""
    if rows == list(range(len(window["clip"]))):
        return window
    return {
        key: value[rows] if torch.is_tensor(value) else [value[row] for row in rows] for key, value in window.items()
    }
