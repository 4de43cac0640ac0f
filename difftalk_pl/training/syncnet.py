"""Training of a SyncNet: choose the speech of some lips among that of other moments and other clips."""

import math
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from difftalk_pl.data.sync import SyncSample
from difftalk_pl.errors import UserError
from difftalk_pl.models.syncnet import SyncNet, SyncNetConfig
from difftalk_pl.training.optim import AdamWTraining, Optimisation, stop_unless_finite
from difftalk_pl.training.weights import DATA_ENTRY, checked_entry, entry, load_into, read_weights, weights_hash

SCALE = 10.0  # at the start, of squared distances between points of unit length


class SyncNetTraining(AdamWTraining):
    """InfoNCE (van den Oord et al., 2018) over the speech of each window's own clip at all shifts, and of the batch.

    The logits are squared distances times a learned scale.

    Args:
        syncnet: sizes of the network.
        optimisation: AdamW and its rate.
        init_from: checkpoint or exported folder to start from; a resumed run ignores it.
        data_label: a note on the data in the checkpoint, such as the dataset's name.
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
        self.val_loss, self.val_pairs, self.val_offset_error = MeanMetric(), MeanMetric(), MeanMetric()
        if init_from is not None:
            weights = read_weights(init_from)
            load_into(self.syncnet, weights.syncnet().state_dict(), init_from)
            self.log_scale.data.fill_(math.log(weights.config["scale"]))

    def embed(self, batch: SyncSample) -> tuple[Tensor, Tensor]:
        """Embed lips (B, T - 4, C), and speech of all shifts (B, T - 4 + 2 S, C)."""
        if "lips" not in batch or batch["lips"].shape[-1] != self.syncnet.config.side:
            raise UserError(f"a SyncNet needs data.contents sync and data.sync.side {self.syncnet.config.side}")
        lips = self.syncnet.embed_stretches(batch["lips"].float())
        speech = self.syncnet.embed_audio(rearrange(batch["mfcc"], "b n c s -> (b n) 1 c s"))
        return lips.float(), rearrange(speech.float(), "(b n) c -> b n c", b=len(lips))

    def training_step(self, batch: SyncSample, batch_idx: int) -> Tensor:
        stop_unless_finite(self, {"mfcc": batch["mfcc"].sum()}, batch["clip"])  # before running statistics change
        lips, speech = self.embed(batch)
        shifts = speech.shape[1] - lips.shape[1]
        logits = choices(lips, speech, same_speech(batch, shifts), self.log_scale.exp())
        target = torch.full(logits.shape[:1], shifts // 2, device=logits.device)
        loss = F.cross_entropy(logits, target)
        stop_unless_finite(self, {"loss": loss}, batch["clip"])
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", (logits.argmax(dim=-1) == target).float().mean())
        self.log("train/scale", self.log_scale.exp())
        return loss

    def validation_step(self, batch: SyncSample, batch_idx: int) -> None:
        """Add scores among the shifts of the own clip, so that they do not depend on the batch.

        `val/pairs`: share of pairs, in sync and shifted, with the smaller distance in sync. `val/offset_error`: of a
        stretch's best shift, in frames.
        """
        shifted = own_distances(*self.embed(batch))
        middle = shifted.shape[-1] // 2
        flat = rearrange(shifted, "b w k -> (b w) k")
        loss = F.cross_entropy(-self.log_scale.exp() * flat, torch.full_like(flat[:, 0], middle, dtype=torch.long))
        self.val_loss.update(loss, len(flat))
        self.val_pairs.update((flat[:, [middle]] < flat).float().sum(dim=-1) / (2 * middle))
        self.val_offset_error.update((shifted.sqrt().mean(dim=1).argmin(dim=-1) - middle).abs().float())

    def on_validation_epoch_end(self) -> None:
        for name in ("loss", "pairs", "offset_error"):
            metric: MeanMetric = getattr(self, f"val_{name}")
            self.log(f"val/{name}", metric.compute(), prog_bar=name == "pairs")
            metric.reset()

    def weights_hash(self) -> str:
        return weights_hash(self.syncnet.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = checkpoint[DATA_ENTRY]
        config = {
            "syncnet": self.syncnet.config,
            "crop": data["sync_crop"],
            "scale": float(self.log_scale.detach().exp()),
            "data_label": self.data_label,
            "trained_on": data["trained_on"],
        }
        checkpoint["difftalk_pl"] = entry("syncnet", config)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checked_entry(checkpoint, "syncnet")


def own_distances(lips: Tensor, speech: Tensor) -> Tensor:
    """Return squared distances of every window to its own clip's speech, (B, W, 2 S + 1); in sync in the middle.

    lips: (B, W, C). speech: (B, W + 2 S, C).
    """
    windows, shifts = lips.shape[1], speech.shape[1] - lips.shape[1] + 1
    places = torch.arange(windows)[:, None] + torch.arange(shifts)
    all_pairs = torch.cdist(lips, speech).square()
    return all_pairs.gather(2, places.to(lips.device).expand(len(lips), -1, -1))


def choices(lips: Tensor, speech: Tensor, excluded: Tensor, scale: Tensor) -> Tensor:
    """Return the loss's logits: the own clip's shifts, then all speech of the batch that is in sync.

    lips: (B, W, C). speech: (B, W + 2 S, C). excluded: (B W, B W) bool, speech of the batch that does not count.
    Returns (B W, 2 S + 1 + B W), of which S is the right choice.
    """
    windows, largest_shift = lips.shape[1], (speech.shape[1] - lips.shape[1]) // 2
    in_sync = rearrange(speech[:, largest_shift : largest_shift + windows], "b w c -> (b w) c")
    others = torch.cdist(rearrange(lips, "b w c -> (b w) c"), in_sync).square()
    own = rearrange(own_distances(lips, speech), "b w k -> (b w) k")
    return torch.cat([-scale * own, (-scale * others).masked_fill(excluded.to(others.device), -torch.inf)], dim=-1)


def same_speech(batch: SyncSample, shifts: int) -> Tensor:
    """Mark speech that is among a window's shifts, or nearly: of the same clip at about the same time.

    shifts: one fewer than there are. Returns (B W, B W) bool, by windows of lips and of speech.
    """
    clips, frames = batch["clip"], torch.as_tensor(batch["frame"]).cpu()
    windows = batch["mfcc"].shape[1] - shifts
    time = rearrange(frames[:, None] + torch.arange(windows), "b w -> (b w)")
    clip = torch.tensor([clips.index(name) for name in clips]).repeat_interleave(windows)
    return (clip[:, None] == clip) & ((time[:, None] - time).abs() <= shifts // 2)
