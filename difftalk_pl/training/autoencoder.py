"""Stage 1: pretraining of the VQ autoencoder, apart from the diffusion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from difftalk_pl.data.dataset import Window
from difftalk_pl.errors import UserError
from difftalk_pl.generation.consistency import Memory
from difftalk_pl.models.adversarial import PatchGAN, adaptive_weight, adversarial_loss, hinge_discriminator_loss
from difftalk_pl.models.autoencoder import Autoencoder, AutoencoderConfig, Reconstruction
from difftalk_pl.models.codebook import Codebook
from difftalk_pl.training.codebook import CodebookTraining
from difftalk_pl.training.guard import StepGuard, buffers_restored, gradient_norm
from difftalk_pl.training.optimisation import Decay, learning_rate_factor, total_steps
from difftalk_pl.training.perceptual import Perceptual, PerceptualDistance
from difftalk_pl.training.strict import refuse_without_optimizer
from difftalk_pl.training.weights import entry, load_into, plain, read_weights, weights_hash


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


HALF_WEIGHTS = ("16-true", "bf16-true")
REMEDIES = (
    "Where the data are sound, go on with a lower learning_rate, a gradient_clip of 1.0, a later adversarial.start, or "
    "trainer.precision 32-true"
)


class AutoencoderPretraining(L.LightningModule):
    """L1, codebook and adversarial loss on single frames, and a perceptual one where a network is named.

    Source of the losses: LDM's vq-f4.

    Args:
        autoencoder: sizes of the network.
        learning_rate: the effective one; nothing multiplies it.
        betas: of Adam, for both networks.
        decay: of the learning rate over the run's max_steps.
        warmup_steps: of the learning rate.
        gradient_clip: largest norm of the autoencoder's gradients; 0 is no clipping.
        adversarial: the discriminator.
        codebook: how the codebook starts, follows the encoder and stays in use.
        perceptual: LPIPS beside the mean absolute error; off without a network. Its weights are read when fit starts.
        init_from: weights to start from, a checkpoint or an exported folder; a resumed run ignores it.
        channels_last: memory layout, 1.3 to 1.8 times faster on CPUs.
    """

    batches: Tensor
    method = "codec"  # of those that `generate` returns, the one that this stage is about
    methods = ("codec",)  # all that there may be

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
        self.perceptual = perceptual
        self.distance: PerceptualDistance | None = None
        self.learning_rate, self.betas, self.decay, self.warmup_steps = learning_rate, betas, decay, warmup_steps
        self.gradient_clip = gradient_clip
        self.adversarial, self.init_from = adversarial, init_from
        self.codebook = CodebookTraining(codebook, autoencoder.codes, autoencoder.latent_channels)
        self.codebook.prepare(self.autoencoder)
        self.guard = StepGuard(REMEDIES)
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.seen = 0  # the same number, known without asking the device
        self.register_load_state_dict_post_hook(_recall_batches)
        self.val_loss = MeanMetric()
        self.trained_on: list[str] | None = None  # identities; known from a checkpoint alone
        if init_from is not None:
            load_into(self.autoencoder, read_weights(init_from).autoencoder().state_dict(), init_from)
            self.seen = codebook.warmup
            self.batches.fill_(self.seen)
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def setup(self, stage: str) -> None:
        precision = self.trainer.precision
        if stage == "fit" and precision == "16-mixed":
            raise UserError(
                "trainer.precision 16-mixed: the discriminator steps without a gradient scaler; use bf16-mixed"
            )
        if stage == "fit" and precision in HALF_WEIGHTS:
            raise UserError(
                f"trainer.precision {precision}: weights of 16 bits lose the small steps of stage 1; use bf16-mixed"
            )
        if stage == "fit" and (distance := self.perceptual.distance("model.init_args.perceptual.weights")) is not None:
            self.distance = distance.to(self.device)

    @property
    def quantising(self) -> bool:
        return self.seen >= self.codebook.settings.warmup

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

    def training_step(self, batch: Window, batch_idx: int) -> None:
        """Both backward passes, one look at all that they are made of, both steps."""
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        self._set_learning_rate(generator, discriminator)
        adversarial = self._adversarial_now()
        with buffers_restored(self.discriminator):
            output = self.autoencoder(batch["image"], quantise=self.quantising)
            norms = {"gradient norm": self._autoencoder_backward(generator, batch, output)}
            if adversarial:
                norm = self._discriminator_backward(discriminator, batch, output.image.detach())
                norms["discriminator's gradient norm"] = norm
            self.guard.check(self.global_step, norms)
        generator.step()
        if adversarial:  # the raw optimizer: a Lightning optimizer's step would count every batch twice
            discriminator.optimizer.step()
        self.codebook.follow(self.autoencoder, output, self.seen)
        self.batches += 1
        self.seen += 1

    def _autoencoder_backward(self, optimizer, batch: Window, output: Reconstruction) -> Tensor:
        """Returns the norm of the autoencoder's gradients, unclipped; the discriminator's are dropped later."""
        optimizer.zero_grad()
        terms = self._autoencoder_loss(batch["image"], output)
        self.guard.watch(batch, terms)
        self.manual_backward(terms["loss"])
        norm = gradient_norm(self.autoencoder.parameters())
        self.log("train/gradient_norm", norm)
        if self.gradient_clip:
            self.clip_gradients(optimizer, gradient_clip_val=self.gradient_clip, gradient_clip_algorithm="norm")
        return norm

    def _autoencoder_loss(self, image: Tensor, output: Reconstruction) -> dict[str, Tensor]:
        """`loss`, and what it is the sum of, each one number."""
        terms = {"l1": F.l1_loss(output.image, image)}
        self.log("train/l1", terms["l1"], prog_bar=True)
        reconstruction = terms["l1"]
        if self.distance is not None:
            terms["perceptual"] = self.distance(output.image, image).mean()
            reconstruction = reconstruction + self.perceptual.weight * terms["perceptual"]
        loss = reconstruction
        if self.quantising:
            terms["codebook_loss"] = output.codebook_loss
            loss = loss + self.codebook.settings.weight * output.codebook_loss
        if self._adversarial_now():
            terms["generator_loss"] = adversarial_loss(self.discriminator(output.image))
            terms["adaptive_weight"] = adaptive_weight(
                reconstruction, terms["generator_loss"], self.autoencoder.last_layer, scale=self.adversarial.weight
            )
            loss = loss + terms["adaptive_weight"] * terms["generator_loss"]
        terms["loss"] = loss
        self.log_dict({f"train/{name}": term for name, term in terms.items() if name != "l1"})
        return terms

    def _adversarial_now(self) -> bool:
        started = self.seen >= self.codebook.settings.warmup + self.adversarial.start
        return self.adversarial.weight > 0 and started

    def _discriminator_backward(self, optimizer, batch: Window, fake: Tensor) -> Tensor:
        """Returns the norm of the discriminator's gradients."""
        optimizer.optimizer.zero_grad()
        loss = hinge_discriminator_loss(self.discriminator(batch["image"]), self.discriminator(fake))
        self.log("train/discriminator_loss", loss)
        self.guard.watch(batch, {"discriminator_loss": loss})
        self.manual_backward(loss)
        return gradient_norm(self.discriminator.parameters())

    def on_train_epoch_start(self) -> None:
        self.codebook.statistics()  # of a resumed epoch only what is left of it is counted

    def on_train_epoch_end(self) -> None:
        names = {"usage": "codebook_usage", "perplexity": "codebook_perplexity", "revived": "revived_codes"}
        self.log_dict({f"train/{names[name]}": value for name, value in self.codebook.statistics().items()})

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if dataloader_idx:
            return
        output = self.autoencoder(batch["image"], quantise=self.quantising)
        self.val_loss.update(F.l1_loss(output.image, batch["image"]), len(batch["image"]))

    def on_validation_epoch_end(self) -> None:
        self.log("val/l1", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Evaluation reconstructs whole clips by `generate`."""

    def generate(self, window: Window, steps: int | None = None, memory: Memory | None = None) -> dict[str, Tensor]:
        """Reconstructions, (B, 3, H, W) in [-1, 1], for whoever measures or shows them; there is nothing to sample."""
        return {"codec": self.autoencoder(window["image"], quantise=self.quantising).image.clamp(-1, 1)}

    @property
    def codes(self) -> int:
        """Size of the codebook."""
        return self.autoencoder.config.codes

    def code_indices(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, h, w), which codes its cells become."""
        return self.autoencoder.quantise(self.autoencoder.encode(image)).indices

    def weights_hash(self) -> str:
        """Names the weights that are in place."""
        return weights_hash(self.autoencoder.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        config = {"autoencoder": plain(self.autoencoder.config)}
        checkpoint["difftalk_pl"] = entry("autoencoder", config)
        checkpoint["difftalk_pl"]["trained_on"] = self.trainer.datamodule.identities("train")  # type: ignore[attr-defined]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        refuse_without_optimizer(checkpoint, self.trainer)
        self.trained_on = checkpoint.get("difftalk_pl", {}).get("trained_on")
        self.codebook.adopt(checkpoint["state_dict"])

    def on_train_start(self) -> None:
        """The configuration's betas hold, not those that resumed optimizers remember."""
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            for group in optimizer.param_groups:
                group["betas"] = tuple(self.betas)


def _recall_batches(module: AutoencoderPretraining, _: Any) -> None:
    """The counter of a state dict that was loaded, once, so that no step waits for the device to read it."""
    module.seen = int(module.batches)
