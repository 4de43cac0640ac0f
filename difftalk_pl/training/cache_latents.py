"""The command `cache-latents`: the latents of a dataset, made once with a frozen autoencoder."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import MASKED_FRAME, ClipBatch, ClipBatches, WindowDataset
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.errors import UserError
from difftalk_pl.training.codec import LatentCodec

log = logging.getLogger(__name__)


def cache_latents(
    data: Path,
    autoencoder: Path,
    mask: MaskName = "mouth_safe",
    batch_size: int = 32,
    workers: int = 2,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> None:
    """Encode every frame of a prepared dataset and every masked frame with a trained autoencoder, once for stage 2.

    Clips that have latents are skipped. Several devices and machines share the clips. A clip that cannot be read costs
    itself alone; a UserError names it at the end.

    Args:
        data: the prepared dataset; the latents go to its folder latents/.
        autoencoder: checkpoint or folder of stage 1.
        mask: the policy that stage 2 will use.
        batch_size: frames a step.
        workers: processes of each device that decode frames.
        accelerator: cpu, gpu or auto.
        devices: how many on each machine, or auto.
        num_nodes: machines.
        strategy: Lightning's, such as ddp; auto is the usual one.
    """
    codec = LatentCodec.load(autoencoder)
    encoder = LatentEncoder(codec, LatentCache(data, codec.hash, mask), open_clips(data), batch_size, workers)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.predict(encoder, return_predictions=False)
    missing = [name for name in encoder.clips if not encoder.cache.path(name).exists()]
    if missing and trainer.is_global_zero:
        told = "; ".join(f"{name}: {encoder.failed.get(name, 'see the log above')}" for name in missing)
        raise UserError(f"{data}: {len(missing)} of {len(encoder.clips)} clips have no latents: {told}")


class LatentEncoder(L.LightningModule):
    """Encodes the clips of one rank that have no latents yet, and writes each clip's file whole or not at all.

    Attributes:
        failed: reasons by the names of clips, of all ranks at the end.
    """

    def __init__(
        self, codec: LatentCodec, cache: LatentCache, clips: list[Clip], batch_size: int, workers: int
    ) -> None:
        super().__init__()
        self.codec, self.cache, self.clips = codec, cache, {clip.name: clip for clip in clips}
        self.batch_size, self.workers, self.failed = batch_size, workers, dict[str, str]()

    def predict_dataloader(self) -> DataLoader:
        """Deal the clips to the ranks; a batch holds frames of one clip alone."""
        clips = list(self.clips.values())
        dealt = range(self.trainer.global_rank, len(clips), self.trainer.world_size)
        own = [number for number in dealt if not self._has_latents(clips[number])]
        log.info("%s: %d clips to encode, %d have latents", self.cache.folder, len(own), len(dealt) - len(own))
        windows = WindowDataset(clips, MASKED_FRAME, mask=MaskPolicy(self.cache.mask))
        return DataLoader(ClipBatches(windows, own, self.batch_size), batch_size=None, num_workers=self.workers)

    def _has_latents(self, clip: Clip) -> bool:
        try:
            self.cache.open(clip)
        except UserError:  # none, or damaged ones
            self.cache.path(clip.name).unlink(missing_ok=True)
            return False
        return True

    def on_predict_start(self) -> None:
        self.codec.to(self.device)
        self.cache.folder.mkdir(parents=True, exist_ok=True)

    def predict_step(self, batch: ClipBatch, batch_idx: int) -> None:
        """Encode a batch into its clip's temporary file, and rename that when it is complete."""
        for name, reason in batch["failed"].items():
            log.warning("%s: no latents: %s", name, reason)
            self.failed[name] = reason
            self._temporary(name).unlink(missing_ok=True)
        window: Any = batch["window"]
        if window is None or window["clip"][0] in self.failed:
            return
        latents = np.stack([self.codec.encode(window[key]).half().cpu().numpy() for key in ("image", "masked")])
        clip, first = self.clips[window["clip"][0]], int(window["frame"][0])
        if first == 0:
            shape = (2, clip.frames, *latents.shape[2:])
            self._array = open_memmap(self._temporary(clip.name), "w+", np.float16, shape=shape)
        self._array[:, first : first + latents.shape[1]] = latents
        if first + latents.shape[1] == clip.frames:
            self._array.flush()
            self._temporary(clip.name).rename(self.cache.path(clip.name))

    def _temporary(self, clip: str) -> Path:
        return self.cache.folder / f".{clip}.tmp"

    def on_predict_end(self) -> None:
        """Wait for the slowest rank and learn the reasons of all."""
        if self.trainer.world_size > 1:
            of_ranks: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(of_ranks, self.failed)
            self.failed = {name: reason for failed in of_ranks for name, reason in failed.items()}
