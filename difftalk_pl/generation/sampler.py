"""From windows to finished frames: condition, masked sampling, decoding, composite."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from difftalk_pl.data.dataset import Window
from difftalk_pl.data.references import ReferencePolicy
from difftalk_pl.errors import UserError
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DiffTalk
from difftalk_pl.models.schedule import NoiseSchedule, sample
from difftalk_pl.training.codec import LatentCodec

NoiseKind = Literal["shared", "independent"]
Preset = Literal["fast", "quality"]
PreviousFrames = dict[str, tuple[int, Tensor]]  # by clip: number and picture (3, H, W) of the last generated frame


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
        noise: starting noise: shared by all frames, so that the mouth does not tremble, or independent. Not in the
            paper; docs/sampling.md has the effect.
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
    noise: NoiseKind = "shared"

    @property
    def policy(self) -> ReferencePolicy:
        return ReferencePolicy.parse(self.reference)

    @property
    def sequential(self) -> bool:
        """Whether a frame needs the previous one."""
        return self.policy.progressive


# docs/sampling.md has the sweep that these come from, and its command.
PRESETS: dict[str, SamplerConfig] = {
    "quality": SamplerConfig(name="ddim", steps=200, reference="widest"),  # as many steps as the paper takes
    "fast": SamplerConfig(name="dpm++", steps=4, reference="widest"),
}


def choose_sampler(preset: Preset = "fast", **changes: object) -> SamplerConfig:
    """Return a preset, changed where something else is given; None leaves it as it is."""
    return replace(PRESETS[preset], **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]


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
    def __call__(self, window: Window, previous: PreviousFrames | None = None) -> Tensor:
        """Generate a batch: image, masked, reference, mask, audio, landmarks -> (B, 3, H, W) in [-1, 1].

        Outside the mask the result equals `image`. For a sequential sampler the frames of a clip come in their order;
        frames of several clips that alternate are generated together.

        Args:
            previous: last frames of the batch before, and then of this one; without it every clip begins anew.
        """
        if not self.sampler.sequential:
            return self._draw(window)
        previous = {} if previous is None else previous
        clips, numbers = list(window["clip"]), torch.as_tensor(window["frame"]).tolist()
        frames = torch.empty_like(window["image"])
        for rows in sequential_groups(clips):
            part = _rows(window, rows)
            for place, row in enumerate(rows):
                number, frame = previous.get(clips[row], (None, None))
                if number == numbers[row] - 1:
                    part["reference"][place] = frame
            frames[rows] = self._draw(part)
            previous.update({clips[row]: (numbers[row], frames[row]) for row in rows})
        for finished in previous.keys() - set(clips):
            del previous[finished]
        return frames

    def _draw(self, window: Window) -> Tensor:
        """Generate frames that do not need each other."""
        sampler, z_masked = self.sampler, self.codec.encode(window["masked"])
        known = {"masked": z_masked, "none": None}.get(sampler.known)
        known = self.codec.encode(window["image"]) if sampler.known == "true" else known
        numbers = torch.as_tensor(window["frame"]).tolist()
        z = sample(
            partial(self._predict, self._condition(window, z_masked, self._encode_references(window))),
            frame_noise(z_masked.shape[1:], numbers, sampler.seed, sampler.noise).to(z_masked),
            scheduler=self.schedule.scheduler(sampler.name),
            steps=sampler.steps,
            known=known,
            mask=None if known is None else self.latent_mask(window["mask"]),
            eta=sampler.eta,
            generator=torch.Generator(z_masked.device).manual_seed(sampler.seed),
        )
        return composite(self.codec.decode(z), window["image"], window["mask"])

    def _encode_references(self, window: Window) -> Tensor:
        """Return z of the references; one that all rows share is encoded once."""
        images, numbers = window["reference"], torch.as_tensor(window["reference_frame"])
        if len(set(window["clip"])) == 1 and bool((numbers == numbers[0]).all()):
            return self.codec.encode(images[:1]).expand(len(images), -1, -1, -1)
        return self.codec.encode(images)

    def _condition(self, window: Window, z_masked: Tensor, z_reference: Tensor) -> Condition:
        """Return the condition; with guidance, that without sound is appended along the batch."""
        audio, landmarks = window["audio"], window["landmarks"]
        condition = self.difftalk.condition(audio, landmarks, z_masked, z_reference)
        if self.sampler.guidance == 1:
            return condition
        silent = self.difftalk.condition(torch.zeros_like(audio), landmarks, z_masked, z_reference)
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


def sequential_groups(clips: Sequence[str]) -> list[list[int]]:
    """Return rows of a batch that can be generated together where a frame needs the previous one: the first frame of
    every clip, then the second of every clip, and so on."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        groups[clips[:row].count(clip)].append(row)
    return list(groups.values())


def frame_noise(shape: Sequence[int], frames: Sequence[int], seed: int, kind: NoiseKind) -> Tensor:
    """Return noise (B, 3, h, w), a function of (seed, frame) alone: no frame depends on its batch."""
    if kind == "shared":
        noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
        return noise.expand(len(frames), *shape).clone()
    keys = [np.random.SeedSequence([seed, frame]).generate_state(1, np.uint64)[0] >> 1 for frame in frames]
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(key))) for key in keys])


def _rows(window: Any, rows: list[int]) -> Any:
    """Select rows of a batch."""
    return {
        key: value[rows] if torch.is_tensor(value) else [value[row] for row in rows] for key, value in window.items()
    }
