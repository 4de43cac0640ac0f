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
from difftalk_pl.files import write_json
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
    cache, clips = LatentCache(data, codec.hash, mask), open_clips(data)
    encoder, writer = LatentEncoder(codec, cache, clips, batch_size, workers), LatentWriter(cache, clips)
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.predict(encoder, return_predictions=False)
    if not trainer.is_global_zero:
        return
    missing = [clip.name for clip in clips if not cache.path(clip.name).exists()]
    if missing:
        told = "; ".join(f"{name}: {writer.failed.get(name, 'see the log above')}" for name in missing)
        raise UserError(f"{data}: {len(missing)} of {len(clips)} clips have no latents: {told}")
    log.info("%s: latents of %d clips", cache.folder, len(clips))


class LatentEncoder(L.LightningModule):
    """Encodes the clips of one rank that have no latents yet, batches of ClipBatches as (2, B, 3, h, w) float16."""

    def __init__(
        self, codec: LatentCodec, cache: LatentCache, clips: list[Clip], batch_size: int, workers: int
    ) -> None:
        super().__init__()
        self.codec, self.cache, self.clips = codec, cache, clips
        self.batch_size, self.workers = batch_size, workers

    def predict_dataloader(self) -> DataLoader:
        dealt = range(self.trainer.global_rank, len(self.clips), self.trainer.world_size)
        own = [number for number in dealt if not self.cache.is_complete(self.clips[number])]
        for number in own:  # damaged ones, and those of a clip that was prepared anew
            self.cache.path(self.clips[number].name).unlink(missing_ok=True)
        log.info("%d clips to encode, %d have latents", len(own), len(dealt) - len(own))
        windows = WindowDataset(self.clips, MASKED_FRAME, mask=MaskPolicy(self.cache.mask))
        return DataLoader(ClipBatches(windows, own, self.batch_size), batch_size=None, num_workers=self.workers)

    def on_predict_start(self) -> None:
        self.codec.to(self.device)

    def predict_step(self, batch: ClipBatch, batch_idx: int) -> np.ndarray | None:
        window = batch["window"]
        if window is None:
            return None
        return np.stack([self.codec.encode(window[key]).half().cpu().numpy() for key in ("image", "masked")])


class LatentWriter(L.Callback):
    """Writes a clip's latents to a temporary file and renames it when it is complete.

    Attributes:
        failed: reasons by the names of clips, of all ranks at the end.
    """

    def __init__(self, cache: LatentCache, clips: list[Clip]) -> None:
        self.cache, self.clips = cache, {clip.name: clip for clip in clips}
        self.failed: dict[str, str] = {}
        cache.folder.mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: ClipBatch, *_: Any
    ) -> None:
        """Write one batch, which holds frames of one clip alone."""
        for name, reason in batch["failed"].items():
            log.warning("%s: no latents: %s", name, reason)
            self.failed[name] = reason
            self._temporary(name).unlink(missing_ok=True)
        window: Any = batch["window"]
        if window is not None and (name := window["clip"][0]) not in self.failed:
            self._write(self.clips[name], int(window["frame"][0]), outputs)

    def _write(self, clip: Clip, first: int, latents: np.ndarray) -> None:
        if first == 0:
            self._made_from = self.cache.made_from(clip)
            shape = (2, clip.frames, *latents.shape[2:])
            self._array = open_memmap(self._temporary(clip.name), "w+", np.float16, shape=shape)
        last = first + latents.shape[1]
        self._array[:, first:last] = latents
        if last == clip.frames:
            self._array.flush()
            write_json(self.cache.record(clip.name), self._made_from)
            self._temporary(clip.name).rename(self.cache.path(clip.name))

    def _temporary(self, clip: str) -> Path:
        return self.cache.folder / f".{clip}.tmp"

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            of_ranks: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(of_ranks, self.failed)  # and wait for the slowest
            self.failed = {name: reason for failed in of_ranks for name, reason in failed.items()}
