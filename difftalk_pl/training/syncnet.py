"""Training of a SyncNet: which speech goes with these lips, told from that of other moments and other clips."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from difftalk_pl.data.sync import SyncSample
from difftalk_pl.errors import UserError
from difftalk_pl.models.syncnet import SyncNet, SyncNetConfig
from difftalk_pl.training.guard import StepGuard, buffers_restored, gradient_norm
from difftalk_pl.training.optimisation import Optimisation
from difftalk_pl.training.strict import refuse_without_optimizer
from difftalk_pl.training.weights import entry, load_into, plain, read_weights, weights_hash

SCALE = 10.0  # at the start, of squared distances between points of unit length
REMEDIES = (
    "Where the data are sound, go on with a lower optimisation.learning_rate, trainer.gradient_clip_val 1.0, or "
    "trainer.precision bf16-mixed or 32-true"
)


class SyncNetTraining(L.LightningModule):
    """For every window of lips, a choice among its clip's speech at all shifts and the speech of the batch's others.

    The logits are squared distances times a learned scale, and the loss is their cross entropy: InfoNCE (van den Oord
    et al., 2018) in place of the published pairs with a margin. One choice among many teaches more than one pair.

    Args:
        syncnet: sizes of the network.
        optimisation: AdamW and its rate.
        init_from: weights to start from, a checkpoint or an exported folder; a resumed run ignores it.
        data_label: a word on the data for whoever reads the checkpoint, such as the dataset's name.
    """

    def __init__(
        self,
        syncnet: SyncNetConfig = SyncNetConfig(normalise=True),
        optimisation: Optimisation = Optimisation(learning_rate=1e-3),
        init_from: Path | None = None,
        data_label: str = "",
    ) -> None:
        super().__init__()
        self.syncnet = SyncNet(syncnet)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.optimisation, self.data_label = optimisation, data_label
        self.guard = StepGuard(REMEDIES)
        self.val_loss, self.val_pairs, self.val_offset_error = MeanMetric(), MeanMetric(), MeanMetric()
        self.trained_on: list[str] | None = None  # identities; known from a checkpoint alone
        if init_from is not None:
            weights = read_weights(init_from)
            load_into(self.syncnet, weights.syncnet().state_dict(), init_from)
            self.log_scale.data.fill_(math.log(weights.config["scale"]))

    def setup(self, stage: str) -> None:
        """Hold the data against the model before any step."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.contents != "sync":
            raise UserError(f"data.contents {data.contents}: a SyncNet trains on stretches of lips; set it to sync")
        side = self.syncnet.config.side
        if data.sync.side != side:
            raise UserError(f"data.sync.side is {data.sync.side}, model.syncnet.side is {side}: set both alike")

    def configure_optimizers(self):
        return self.optimisation.configure(self.parameters(), self.trainer)

    def on_train_start(self) -> None:
        self.optimisation.prevail(self.optimizers(), self.lr_schedulers())

    def embed(self, batch: SyncSample) -> tuple[Tensor, Tensor]:
        """Lips (B, T - 4, C), and speech of all shifts (B, T - 4 + 2 S, C)."""
        lips = self.syncnet.embed_stretches(batch["lips"].float())
        speech = self.syncnet.embed_audio(rearrange(batch["mfcc"], "b n c s -> (b n) 1 c s"))
        return lips.float(), rearrange(speech.float(), "(b n) c -> b n c", b=len(lips))

    def training_step(self, batch: SyncSample, batch_idx: int) -> Tensor:
        with buffers_restored(self.syncnet):
            lips, speech = self.embed(batch)
            logits = choices(lips, speech, heard(batch, speech.shape[1] - lips.shape[1]), self.log_scale.exp())
            target = torch.full(logits.shape[:1], (speech.shape[1] - lips.shape[1]) // 2, device=logits.device)
            loss = F.cross_entropy(logits, target)
            self.guard.watch(batch, {"loss": loss})
            self.guard.check(self.global_step, {})
        self.guard.watch(batch, {})  # whose gradients are next
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", (logits.argmax(dim=-1) == target).float().mean())
        self.log("train/scale", self.log_scale.exp())
        return loss

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """A step that is broken off leaves no trace in running statistics."""
        with buffers_restored(self.syncnet):
            super().optimizer_step(*arguments, **named)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """With float16 the scaler looks for gradients that are not finite, and leaves out such a step."""
        norm = gradient_norm(self.parameters())
        self.log("train/gradient_norm", norm)
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self.guard.check(self.global_step, {} if scaled else {"gradient norm": norm})

    def validation_step(self, batch: SyncSample, batch_idx: int) -> None:
        """Among the shifts of their own clip alone, so that no score depends on how the batches fell.

        `val/pairs` is the share of pairs, in sync and shifted, in which the distance in sync is the smaller one. It is
        over all shifts, which is what random ones give in the mean. `val/offset_error` is of the best shift of a
        stretch as a whole, in frames.
        """
        shifted = own_distances(*self.embed(batch))
        middle = shifted.shape[-1] // 2
        flat = rearrange(shifted, "b w k -> (b w) k")
        loss = F.cross_entropy(-self.log_scale.exp() * flat, torch.full_like(flat[:, 0], middle, dtype=torch.long))
        nearer = (flat[:, [middle]] < flat).float().sum(dim=-1) / (2 * middle)
        offsets = (shifted.sqrt().mean(dim=1).argmin(dim=-1) - middle).abs().float()
        self.val_loss.update(loss, len(flat))
        self.val_pairs.update(nearer)
        self.val_offset_error.update(offsets)

    def on_validation_epoch_end(self) -> None:
        """Computed here, where torchmetrics adds up all processes: exact however the stretches are divided."""
        for name in ("loss", "pairs", "offset_error"):
            metric: MeanMetric = getattr(self, f"val_{name}")
            self.log(f"val/{name}", metric.compute(), prog_bar=name == "pairs")
            metric.reset()

    def weights_hash(self) -> str:
        """Names the weights that are in place."""
        return weights_hash(self.syncnet.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        people = data.identities("train")
        config = {
            "syncnet": plain(self.syncnet.config),
            "crop": data.sync.crop,
            "scale": float(self.log_scale.detach().exp()),
            "data_label": self.data_label,
            "trained_on": people,
        }
        checkpoint["difftalk_pl"] = entry("syncnet", config)
        checkpoint["difftalk_pl"]["trained_on"] = people

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another stage, or one that saw other crops."""
        content = checkpoint.get("difftalk_pl", {})
        if content.get("stage") != "syncnet":
            raise UserError(f"the checkpoint is of {content.get('stage', 'another program')}, expected syncnet")
        refuse_without_optimizer(checkpoint, self.trainer)
        self.trained_on = content.get("trained_on")
        trained, here = content["config"]["crop"], self.trainer.datamodule.sync.crop  # type: ignore[attr-defined]
        if trained != here:
            raise UserError(f"the checkpoint was trained on data.sync.crop {trained}, not {here}: set it so")


def own_distances(lips: Tensor, speech: Tensor) -> Tensor:
    """Squared distances of every window to its own clip's speech, (B, W, 2 S + 1); in sync in the middle.

    lips: (B, W, C). speech: (B, W + 2 S, C).
    """
    windows, shifts = lips.shape[1], speech.shape[1] - lips.shape[1] + 1
    places = torch.arange(windows)[:, None] + torch.arange(shifts)
    all_pairs = torch.cdist(lips, speech).square()
    return all_pairs.gather(2, places.to(lips.device).expand(len(lips), -1, -1))


def choices(lips: Tensor, speech: Tensor, heard: Tensor, scale: Tensor) -> Tensor:
    """Logits of what the loss chooses from: the own clip's shifts, then all speech of the batch that is in sync.

    Args:
        lips: (B, W, C).
        speech: (B, W + 2 S, C).
        heard: (B W, B W) bool, what of the batch does not count.
        scale: of squared distances.

    Returns:
        (B W, 2 S + 1 + B W). The right choice is S.
    """
    windows, largest_shift = lips.shape[1], (speech.shape[1] - lips.shape[1]) // 2
    in_sync = rearrange(speech[:, largest_shift : largest_shift + windows], "b w c -> (b w) c")
    others = torch.cdist(rearrange(lips, "b w c -> (b w) c"), in_sync).square()
    own = rearrange(own_distances(lips, speech), "b w k -> (b w) k")
    return torch.cat([-scale * own, (-scale * others).masked_fill(heard.to(others.device), -torch.inf)], dim=-1)


def heard(batch: SyncSample, shifts: int) -> Tensor:
    """Which speech of a batch is among a window's shifts already, or nearly: of the same clip at about the same time.

    shifts: one fewer than there are.

    Returns:
        (B W, B W) bool, by windows of lips and of speech.
    """
    clips, frames = batch["clip"], torch.as_tensor(batch["frame"]).cpu()
    windows = batch["mfcc"].shape[1] - shifts
    time = rearrange(frames[:, None] + torch.arange(windows), "b w -> (b w)")
    who = torch.tensor([clips.index(clip) for clip in clips]).repeat_interleave(windows)
    return (who[:, None] == who) & ((time[:, None] - time).abs() <= shifts // 2)
