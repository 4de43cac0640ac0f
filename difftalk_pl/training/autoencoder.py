"""Stage 1: training of the VQ autoencoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from difftalk_pl.data.dataset import Window
from difftalk_pl.errors import UserError
from difftalk_pl.generation.steps import ClipGeneration, GenerationState
from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig, Reconstruction
from difftalk_pl.training.codebook import Codebook, CodebookTraining
from difftalk_pl.training.optim import Decay, gradient_norm, learning_rate_factor, stop_unless_finite, total_steps
from difftalk_pl.training.pretrained import Perceptual, PerceptualDistance
from difftalk_pl.training.weights import checked_entry, entry, load_into, read_weights, weights_hash

PRECISIONS = ("16-mixed", "16-true", "bf16-true")  # no scaler for the discriminator; small steps lost in 16 bit weights


@dataclass
class Adversarial:
    """The discriminator; LDM's values.

    Args:
        weight: of the adaptive weight; 0 trains without a discriminator.
        start: batches before it joins, after the codebook's warm-up.
        filters: width of the PatchGAN.
        layers: depth of the PatchGAN.
    """

    weight: float = 0.75
    start: int = 0
    filters: int = 64
    layers: int = 3


class AutoencoderPretraining(ClipGeneration):
    """L1, codebook, adversarial and, optionally, perceptual loss on single frames, as in LDM's vq-f4.

    Args:
        autoencoder: sizes of the network.
        learning_rate: the effective one; nothing multiplies it.
        betas: of Adam, for both networks.
        decay: of the learning rate over the run's max_steps.
        warmup_steps: of the learning rate.
        gradient_clip: largest norm of the autoencoder's gradients; 0 is no clipping.
        adversarial: the discriminator.
        codebook: start and revival of the codebook.
        perceptual: LPIPS beside the mean absolute error; its weights are read when fit starts.
        init_from: checkpoint or exported folder to start from; a resumed run ignores it.
        channels_last: memory layout, 1.3 to 1.8 times faster on CPUs.
    """

    batches: Tensor
    method, methods = "codec", ("codec",)

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
        perceptual: Perceptual = Perceptual(),
        init_from: Path | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.autoencoder = Autoencoder(autoencoder)
        self.discriminator = PatchGAN(filters=adversarial.filters, layers=adversarial.layers)
        self.codebook = CodebookTraining(codebook, autoencoder.codes, autoencoder.latent_channels)
        self.perceptual, self.adversarial = perceptual, adversarial
        self.distance: PerceptualDistance | None = None
        self.learning_rate, self.betas, self.decay, self.warmup_steps = learning_rate, betas, decay, warmup_steps
        self.gradient_clip = gradient_clip
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.seen = 0  # the same number, known without waiting for the device
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "seen", int(module.batches)))
        self.val_loss = MeanMetric()
        if init_from is not None:
            load_into(self.autoencoder, read_weights(init_from).autoencoder().state_dict(), init_from)
            self.seen = codebook.warmup
            self.batches.fill_(self.seen)
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        if self.trainer.precision in PRECISIONS:
            raise UserError(f"trainer.precision {self.trainer.precision}: stage 1 needs bf16-mixed or 32-true")
        if self.perceptual.network is not None:
            option, device = "model.init_args.perceptual.weights", self.trainer.strategy.root_device
            self.distance = PerceptualDistance(self.perceptual.network, self.perceptual.weights, option).to(device)  # type: ignore[arg-type]

    @property
    def quantising(self) -> bool:
        return self.seen >= self.codebook.settings.warmup

    @property
    def _adversarial_now(self) -> bool:
        started = self.seen >= self.codebook.settings.warmup + self.adversarial.start
        return self.adversarial.weight > 0 and started

    def configure_optimizers(self):
        generator = torch.optim.Adam(self.autoencoder.parameters(), lr=self.learning_rate, betas=self.betas)
        discriminator = torch.optim.Adam(self.discriminator.parameters(), lr=self.learning_rate, betas=self.betas)
        return generator, discriminator

    def training_step(self, batch: Window, batch_idx: int) -> None:
        """Run both backward passes, check all losses and gradients, then step both optimizers."""
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        self._set_learning_rate(generator, discriminator)
        adversarial = self._adversarial_now
        output = self.autoencoder(batch["image"], quantise=self.quantising)
        values = self._autoencoder_backward(generator, batch["image"], output)
        if adversarial:
            values |= self._discriminator_backward(discriminator, batch["image"], output.image.detach())
        for name, value in values.items():
            self.log(f"train/{name}", value, prog_bar=name == "l1")
        stop_unless_finite(self, values, batch["clip"])
        generator.step()
        if adversarial:  # the raw optimizer: a Lightning optimizer's step would count every batch twice
            discriminator.optimizer.step()
        self.codebook.follow(self.autoencoder, output, self.seen, self.trainer.strategy)
        self.batches += 1
        self.seen += 1

    def _set_learning_rate(self, *optimizers: Any) -> None:
        """Set learning rate and betas of the configuration, also in resumed optimizers."""
        total = total_steps(self.trainer, self.decay)
        rate = self.learning_rate * learning_rate_factor(self.global_step, self.decay, self.warmup_steps, total)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group.update(lr=rate, betas=tuple(self.betas))
        self.log("train/learning_rate", rate)

    def _autoencoder_backward(self, optimizer: Any, image: Tensor, output: Reconstruction) -> dict[str, Tensor]:
        """Return the terms of the loss and the norm of the gradients before clipping."""
        optimizer.zero_grad()
        terms = self.autoencoder_loss(image, output)
        self.manual_backward(terms["loss"])
        terms["gradient_norm"] = gradient_norm(self.autoencoder.parameters())
        if self.gradient_clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.gradient_clip, gradient_clip_algorithm="norm")
        return terms

    def autoencoder_loss(self, image: Tensor, output: Reconstruction) -> dict[str, Tensor]:
        """Return `loss` and its terms, each ()."""
        terms = {"l1": F.l1_loss(output.image, image)}
        reconstruction = terms["l1"]
        if self.distance is not None:
            terms["perceptual"] = self.distance(output.image, image).mean()
            reconstruction = reconstruction + self.perceptual.weight * terms["perceptual"]
        loss = reconstruction
        if self.quantising:
            terms["codebook_loss"] = output.codebook_loss
            loss = loss + self.codebook.settings.weight * output.codebook_loss
        if self._adversarial_now:
            terms["generator_loss"] = adversarial_loss(self.discriminator(output.image))
            terms["adaptive_weight"] = adaptive_weight(
                reconstruction, terms["generator_loss"], self.autoencoder.last_layer, scale=self.adversarial.weight
            )
            loss = loss + terms["adaptive_weight"] * terms["generator_loss"]
        return terms | {"loss": loss}

    def _discriminator_backward(self, optimizer: Any, image: Tensor, fake: Tensor) -> dict[str, Tensor]:
        optimizer.optimizer.zero_grad()
        loss = hinge_discriminator_loss(self.discriminator(image), self.discriminator(fake))
        self.manual_backward(loss)
        norm = gradient_norm(self.discriminator.parameters())
        return {"discriminator_loss": loss, "discriminator_gradient_norm": norm}

    def on_train_epoch_start(self) -> None:
        self.codebook.statistics()  # resets them

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"train/{name}": value for name, value in self.codebook.statistics().items()})

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor] | None:
        """Compute the loss of windows; reconstruct the clips of the second loader."""
        if dataloader_idx:
            return self.generate_batch(batch)
        output = self.autoencoder(batch["image"], quantise=self.quantising)
        self.val_loss.update(F.l1_loss(output.image, batch["image"]), len(batch["image"]))
        return None

    def on_validation_epoch_end(self) -> None:
        self.log("val/l1", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()

    def generate(self, window: Window, state: GenerationState, steps: int | None = None) -> dict[str, Tensor]:
        """Return reconstructions, (B, 3, H, W) in [-1, 1]; there is nothing to sample."""
        return {"codec": self.autoencoder(window["image"], quantise=self.quantising).image.clamp(-1, 1)}

    def weights_hash(self) -> str:
        return weights_hash(self.autoencoder.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["difftalk_pl"] = entry("autoencoder", {"autoencoder": self.autoencoder.config})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checked_entry(checkpoint, "autoencoder")
