"""Stage 1: pretraining of the VQ autoencoder, apart from the diffusion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from difftalk_pl.data.windows import Window
from difftalk_pl.errors import UserError
from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig, Reconstruction, codebook_statistics
from difftalk_pl.stages.optimisation import Decay, learning_rate_factor, total_steps
from difftalk_pl.stages.weights import entry, load_into, plain, read_weights, weights_hash


@dataclass
class Adversarial:
    """The discriminator: LDM's values.

    Args:
        weight: of the adaptive weight; 0 trains without a discriminator.
        start: batches of this run before it joins; counted in the module, whatever the optimizers do.
        filters: width of the PatchGAN.
        layers: depth of the PatchGAN.
    """

    weight: float = 0.75
    start: int = 0
    filters: int = 64
    layers: int = 3


@dataclass
class Codebook:
    """How the codebook comes to be used.

    Args:
        weight: of the codebook loss.
        warmup: batches that train without quantisation; then k-means of encoder outputs becomes the codebook.
        vectors: encoder outputs that k-means sees.
    """

    weight: float = 1.0
    warmup: int = 0
    vectors: int = 65536


class AutoencoderPretraining(L.LightningModule):
    """L1, codebook and adversarial loss on single frames, and a perceptual one where a network is given.

    Source of the losses: LDM's vq-f4.

    Args:
        autoencoder: sizes of the network.
        learning_rate: the effective one; nothing multiplies it.
        betas: of Adam, for both networks.
        decay: of the learning rate over the run's max_steps.
        warmup_steps: of the learning rate.
        gradient_clip: largest norm of the autoencoder's gradients; 0 is no clipping.
        adversarial: the discriminator.
        codebook: warm-up and weight.
        perceptual: a module that maps two images in [-1, 1] to a distance; off without one.
        perceptual_weight: its weight.
        init_from: weights to start from, a checkpoint or an exported folder; a resumed run ignores it.
        channels_last: memory layout, 1.3 to 1.8 times faster on CPUs.
    """

    batches: Tensor
    code_counts: Tensor
    warmup_cells: Tensor

    def __init__(
        self,
        autoencoder: AutoencoderConfig = AutoencoderConfig(),
        learning_rate: float = 4.5e-6,
        betas: tuple[float, float] = (0.5, 0.9),
        decay: Decay = "constant",
        warmup_steps: int = 0,
        gradient_clip: float = 0.0,
        adversarial: Adversarial = Adversarial(),
        codebook: Codebook = Codebook(),
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
        init_from: Path | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.autoencoder = Autoencoder(autoencoder)
        self.discriminator = PatchGAN(filters=adversarial.filters, layers=adversarial.layers)
        self.perceptual = None if perceptual is None else perceptual.eval().requires_grad_(False)
        self.learning_rate, self.betas, self.decay, self.warmup_steps = learning_rate, betas, decay, warmup_steps
        self.gradient_clip, self.perceptual_weight = gradient_clip, perceptual_weight
        self.adversarial, self.codebook, self.init_from = adversarial, codebook, init_from
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("code_counts", torch.zeros(autoencoder.codes), persistent=False)
        self.val_loss = MeanMetric()
        self.trained_on: list[str] | None = None  # identities; known from a checkpoint alone
        collected = codebook.vectors if codebook.warmup else 0
        self.register_buffer("warmup_cells", torch.zeros(collected, autoencoder.latent_channels))
        if init_from is not None:
            load_into(self.autoencoder, read_weights(init_from).autoencoder().state_dict(), init_from)
            self.batches.fill_(codebook.warmup)
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.precision == "16-mixed":
            raise UserError(
                "trainer.precision 16-mixed: the discriminator steps without a gradient scaler; use bf16-mixed"
            )

    @property
    def quantising(self) -> bool:
        return int(self.batches) >= self.codebook.warmup

    def configure_optimizers(self):
        generator = torch.optim.Adam(self.autoencoder.parameters(), lr=self.learning_rate, betas=self.betas)
        discriminator = torch.optim.Adam(self.discriminator.parameters(), lr=self.learning_rate, betas=self.betas)
        return generator, discriminator

    def _set_learning_rate(self, *optimizers: LightningOptimizer) -> None:
        """A function of the step alone: the discriminator's optimizer is not stepped in every batch."""
        total = total_steps(self.trainer, self.decay)
        rate = self.learning_rate * learning_rate_factor(self.global_step, self.decay, self.warmup_steps, total)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        self.log("train/learning_rate", rate)

    def train(self, mode: bool = True) -> "AutoencoderPretraining":
        """As in nn.Module, except that the perceptual network never leaves evaluation."""
        super().train(mode)
        if self.perceptual is not None:
            self.perceptual.eval()
        return self

    def on_train_epoch_start(self) -> None:
        self.code_counts.zero_()

    def training_step(self, batch: Window, batch_idx: int) -> None:
        image = batch["image"]
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        self._set_learning_rate(generator, discriminator)
        output = self.autoencoder(image, quantise=self.quantising)
        loss = self._autoencoder_loss(image, output)
        self._step_autoencoder(generator, loss)
        if self._adversarial_now():
            self._step_discriminator(discriminator, image, output.image.detach())
        self._count(output)
        self.batches += 1

    def _step_autoencoder(self, optimizer, loss: Tensor) -> None:
        """One step of the autoencoder; the discriminator's gradients of this pass are dropped with the next one."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.gradient_clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.gradient_clip, gradient_clip_algorithm="norm")
        optimizer.step()

    def _autoencoder_loss(self, image: Tensor, output: Reconstruction) -> Tensor:
        reconstruction = F.l1_loss(output.image, image)
        self.log("train/l1", reconstruction, prog_bar=True)
        if self.perceptual is not None:
            perceptual = self.perceptual(output.image, image).mean()
            self.log("train/perceptual", perceptual)
            reconstruction = reconstruction + self.perceptual_weight * perceptual
        loss = reconstruction
        if self.quantising:
            self.log("train/codebook_loss", output.codebook_loss)
            loss = loss + self.codebook.weight * output.codebook_loss
        if self._adversarial_now():
            generator_loss = adversarial_loss(self.discriminator(output.image))
            weight = adaptive_weight(
                reconstruction, generator_loss, self.autoencoder.last_layer, scale=self.adversarial.weight
            )
            self.log_dict({"train/generator_loss": generator_loss, "train/adaptive_weight": weight})
            loss = loss + weight * generator_loss
        self.log("train/loss", loss)
        return loss

    def _adversarial_now(self) -> bool:
        started = self.quantising and int(self.batches) >= self.codebook.warmup + self.adversarial.start
        return self.adversarial.weight > 0 and started

    def _step_discriminator(self, optimizer, real: Tensor, fake: Tensor) -> None:
        """Steps the raw optimizer: a Lightning optimizer's step would count every batch twice."""
        optimizer.optimizer.zero_grad()
        loss = hinge_discriminator_loss(self.discriminator(real), self.discriminator(fake))
        self.manual_backward(loss)
        optimizer.optimizer.step()
        self.log("train/discriminator_loss", loss)

    def _count(self, output: Reconstruction) -> None:
        if output.indices is not None:
            self.code_counts += torch.bincount(output.indices.flatten(), minlength=len(self.code_counts))
            return
        self._collect_cells(output.z.detach().movedim(1, -1).flatten(0, -2))
        if int(self.batches) == self.codebook.warmup - 1:
            self._start_codebook()

    def _collect_cells(self, cells: Tensor) -> None:
        """Cells of z, (N, 3), from the second half of the warm-up. A buffer, so that a resumed run still has them."""
        half = self.codebook.warmup // 2
        per_batch = max(self.codebook.vectors // max(self.codebook.warmup - half, 1), 1)
        start = (int(self.batches) - half) * per_batch
        if start >= 0:
            chosen = cells[torch.randperm(len(cells), device=cells.device)[:per_batch]]
            room = self.warmup_cells[start : start + per_batch]
            room[: len(chosen)] = chosen[: len(room)]

    def _start_codebook(self) -> None:
        """End of the warm-up: latents to unit variance, k-means as codebook. All ranks take what rank 0 collected."""
        cells = self.trainer.strategy.broadcast(self.warmup_cells).to(self.device)  # it arrives on rank 0's device
        cells = cells[cells.abs().sum(1) > 0]
        self.autoencoder.initialise_codebook(self.autoencoder.normalise_latents(cells))

    def on_train_epoch_end(self) -> None:
        if self.code_counts.sum() > 0:
            usage, perplexity = codebook_statistics(self.code_counts)
            self.log_dict({"train/codebook_usage": usage, "train/codebook_perplexity": perplexity})

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        output = self.autoencoder(batch["image"], quantise=self.quantising)
        self.val_loss.update(F.l1_loss(output.image, batch["image"]), len(batch["image"]))

    def on_validation_epoch_end(self) -> None:
        self.log("val/l1", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()

    def test_step(self, batch: Window, batch_idx: int) -> dict[str, Tensor]:
        """Reconstructions, (B, 3, H, W) in [-1, 1], for whoever measures them."""
        return {"codec": self.autoencoder(batch["image"], quantise=self.quantising).image.clamp(-1, 1)}

    def weights_hash(self) -> str:
        """Names the weights that are in place."""
        return weights_hash(self.autoencoder.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        config = {"autoencoder": plain(self.autoencoder.config)}
        checkpoint["difftalk_pl"] = entry("autoencoder", config)
        checkpoint["difftalk_pl"]["trained_on"] = self.trainer.datamodule.identities("train")  # type: ignore[attr-defined]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.trained_on = checkpoint.get("difftalk_pl", {}).get("trained_on")

    def on_train_start(self) -> None:
        """The configuration's betas hold, not those that resumed optimizers remember."""
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            for group in optimizer.param_groups:
                group["betas"] = tuple(self.betas)
