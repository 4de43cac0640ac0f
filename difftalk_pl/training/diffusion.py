"""Stage 2: training of the conditional diffusion model on latents of a frozen autoencoder."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from difftalk_pl.data.dataset import Window
from difftalk_pl.errors import UserError
from difftalk_pl.generation.sampler import Generator, SamplerConfig, composite
from difftalk_pl.generation.steps import ClipGeneration, GenerationState
from difftalk_pl.models.conditioning import Condition
from difftalk_pl.models.denoiser import DiffTalk, DiffTalkConfig
from difftalk_pl.models.schedule import NoiseSchedule
from difftalk_pl.training.codec import LatentCodec
from difftalk_pl.training.optim import AdamWTraining, Optimisation, stop_unless_finite
from difftalk_pl.training.weights import Weights, checked_entry, entry, load_into, read_weights, weights_hash


class DiffusionTraining(AdamWTraining, ClipGeneration):
    """Mean squared error on the noise, conditioned on speech, landmarks, masked target and reference.

    Paper, section 3.2 and equation 4.

    Args:
        autoencoder: weights of stage 1, a checkpoint or an exported folder.
        difftalk: sizes of denoiser and encoders.
        schedule: the noise.
        optimisation: AdamW and its rate.
        sampler: how test and sample images generate; no part of the trained model.
        init_from: checkpoint or exported folder to start from; a resumed run ignores it.
        audio_dropout: share of training windows without sound, for `sampler.guidance`: classifier-free guidance (Ho and
            Salimans, 2022). Not in the paper.
        seed: of noise and timesteps, a function of (seed, rank, step, part of an accumulated step).
        channels_last: memory layout, faster on CPUs.
    """

    method, methods = "model", ("model", "codec", "shuffled audio")

    def __init__(
        self,
        autoencoder: Path,
        difftalk: DiffTalkConfig = DiffTalkConfig(),
        schedule: NoiseSchedule = NoiseSchedule(),
        optimisation: Optimisation = Optimisation(),
        sampler: SamplerConfig = SamplerConfig(),
        init_from: Path | None = None,
        audio_dropout: float = 0.0,
        seed: int = 0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= audio_dropout < 1:
            raise UserError(f"model.audio_dropout is {audio_dropout:g}: expected a share from 0 to below 1")
        self.codec = LatentCodec.load(autoencoder)
        self.difftalk = DiffTalk(difftalk)
        self.schedule, self.optimisation, self.sampler, self.seed = schedule, optimisation, sampler, seed
        self.audio_dropout = audio_dropout
        self.val_loss = MeanMetric()
        if init_from is not None:
            load_into(self.difftalk, read_weights(init_from).difftalk().state_dict(), init_from)
        if channels_last:
            self.difftalk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def codec_hash(self) -> str:
        """Hash of the frozen autoencoder, which names its cached latents."""
        return self.codec.hash

    def setup(self, stage: str) -> None:
        self.codec.to(self.trainer.strategy.root_device)  # the module itself is moved after setup

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        part = batch_idx % self.trainer.accumulate_grad_batches  # parts of one step must not share their noise
        key = np.random.SeedSequence([self.seed, self.global_rank, self.global_step, part])
        generator = torch.Generator(self.device).manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))
        loss = self._noise_error(self._drop_audio(batch, generator), [generator])
        self.log("train/loss", loss, prog_bar=True)
        stop_unless_finite(self, {"loss": loss}, batch["clip"])
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor] | None:
        """Add the loss with noise that is a function of clip and frame: the same in all epochs and on any rank."""
        if dataloader_idx:
            return self.generate_batch(batch, self.sampler.val_steps if self.trainer.state.fn == "fit" else None)
        keys = [zlib.crc32(f"{clip} {frame}".encode()) for clip, frame in zip(batch["clip"], batch["frame"].tolist())]
        generators = [torch.Generator(self.device).manual_seed(key) for key in keys]
        self.val_loss.update(self._noise_error(batch, generators), len(keys))
        return None

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()

    def _drop_audio(self, batch: Window, generator: torch.Generator) -> Window:
        if not self.audio_dropout:
            return batch
        audio = batch["audio"]
        kept = torch.rand(len(audio), generator=generator, device=self.device) >= self.audio_dropout
        return {**batch, "audio": torch.where(kept[:, None, None, None], audio, torch.zeros_like(audio))}

    def _noise_error(self, batch: Window, generators: Sequence[torch.Generator]) -> Tensor:
        """Return the loss; generators: one for the whole batch, or one per window."""
        z_start, condition = self._condition(batch)
        drawn = [
            (
                torch.randn(part.shape, generator=generator, device=self.device),
                torch.randint(self.schedule.steps, (len(part),), generator=generator, device=self.device),
            )
            for part, generator in zip(z_start.chunk(len(generators)), generators)
        ]
        noise, t = (torch.cat(parts) for parts in zip(*drawn))
        predicted = self.difftalk(self.schedule.add_noise(z_start, noise, t), t, condition)
        return F.mse_loss(predicted.float(), noise)

    def _condition(self, batch: Window) -> tuple[Tensor, Condition]:
        """Take latents from the cache, or encode the batch's images."""
        if "z" in batch:
            z, z_masked, z_reference = (batch[key].float() for key in ("z", "z_masked", "z_reference"))
        else:
            z, z_masked, z_reference = (self.codec.encode(batch[key]) for key in ("image", "masked", "reference"))
        return z, self.difftalk.condition(batch["audio"], batch["landmarks"], z_masked, z_reference)

    def generator(self, steps: int | None = None) -> Generator:
        """Return the generator of frames with the current weights. `steps`: in place of the configured ones."""
        sampler = self.sampler if steps is None else replace(self.sampler, steps=steps)
        return Generator(self.difftalk, self.codec, self.schedule, sampler, self.audio_dropout)

    def generate(self, window: Window, state: GenerationState, steps: int | None = None) -> dict[str, Tensor]:
        """Generate the frames of the model and of its controls, (B, 3, H, W) in [-1, 1].

        Args:
            window: a batch with image, masked, reference, mask, audio, landmarks; with other_audio there is one control
                more.
            state: previous frames, where frames need them.
            steps: of sampling, in place of the configured ones.
        """
        generator = self.generator(steps)
        reconstructed = self.codec.decode(self.codec.encode(window["image"]))
        frames = {
            "model": generator(window, state["model"]),
            "codec": composite(reconstructed, window["image"], window["mask"]),
        }
        if "other_audio" in window:
            control: Window = {**window, "audio": window["other_audio"]}
            frames["shuffled audio"] = generator(control, state["shuffled audio"])
        return frames

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor] | None:
        """Generate the model's frames alone."""
        window = batch["window"]
        return None if window is None else {"model": self.generator()(window, self.state["model"])}

    def weights_hash(self) -> str:
        return weights_hash(self.difftalk.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        config = {
            "difftalk": self.difftalk.config,
            "schedule": self.schedule,
            "audio_dropout": self.audio_dropout,
        }
        checkpoint["difftalk_pl"] = entry("diffusion", config, self.codec.weights)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another autoencoder's latents."""
        content = checked_entry(checkpoint, "diffusion")
        codec = Weights("autoencoder", content["codec"]["config"], content["codec"]["state"]).hash
        if codec != self.codec.hash:
            raise UserError(
                f"the checkpoint was trained with autoencoder {codec}, model.autoencoder is {self.codec.hash}: "
                "give the autoencoder it was trained with, or start another --run"
            )
        if self.trainer.state.fn != "fit":
            self.audio_dropout = content["config"]["audio_dropout"]
