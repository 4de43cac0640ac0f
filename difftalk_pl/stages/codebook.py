"""The codebook in training, over all processes: warm-up and k-means start, moving means, revival, statistics."""

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from difftalk_pl.models.autoencoder import Autoencoder, Reconstruction
from difftalk_pl.models.codebook import Codebook, CodebookKeeper, code_use, codebook_statistics, step_generator
from difftalk_pl.stages.ranks import gathered, same_as_first, summed

PREFIX = "codebook."  # of its buffers in a checkpoint
OLD_NAMES = {"warmup_cells": PREFIX + "cells"}


class CodebookTraining(nn.Module):
    """Sees every batch after the optimizer's step. What it learns is that of one process with the batches of all.

    Nothing here waits for the device but `start`, once, and `statistics`, once an epoch.
    """

    counts: Tensor
    revived: Tensor
    cells: Tensor

    def __init__(self, settings: Codebook, codes: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.keeper = CodebookKeeper(settings, codes, channels)
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.long), persistent=False)
        self.register_buffer("revived", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("cells", torch.zeros(settings.vectors if settings.warmup else 0, channels))

    def prepare(self, autoencoder: Autoencoder) -> None:
        """With moving means no gradient reaches the codes: the loss is the same number, and pulls the encoder only."""
        autoencoder.codes.requires_grad_(self.settings.update == "gradient")

    def follow(self, autoencoder: Autoencoder, output: Reconstruction, batch: int) -> None:
        """Take in the batch of this number, counted from 0: quantised, or one of the warm-up."""
        cells = output.z.detach().movedim(1, -1).flatten(0, -2).float()
        if output.indices is None:
            self._collect(cells, batch)
            if batch == self.settings.warmup - 1:
                self._start(autoencoder)
            return
        use = code_use(cells, output.indices.flatten(), len(self.counts))
        use = type(use)(*(summed(part) for part in use))
        self.counts += use.counts.long()
        self.keeper.follow(autoencoder.codes.data, use)
        if self.keeper.revives:
            self.revived += self.keeper.revive(autoencoder.codes.data, use, gathered(cells), batch)

    def _collect(self, cells: Tensor, batch: int) -> None:
        """Cells of z, (N, C), from the second half of the warm-up. A buffer, so that a resumed run still has them."""
        half = self.settings.warmup // 2
        per_batch = max(self.settings.vectors // max(self.settings.warmup - half, 1), 1)
        start = (batch - half) * per_batch
        if start >= 0:
            cells = gathered(cells)
            drawn = torch.randperm(len(cells), generator=step_generator(self.settings.seed, batch))[:per_batch]
            room = self.cells[start : start + per_batch]
            room[: len(drawn)] = cells[drawn.to(cells.device)][: len(room)]

    def _start(self, autoencoder: Autoencoder) -> None:
        """End of the warm-up: latents to unit variance, k-means as codebook."""
        cells = self.cells[self.cells.abs().sum(1) > 0]
        autoencoder.initialise_codebook(autoencoder.normalise_latents(cells), self.settings.seed)
        same_as_first(parameter.data for parameter in autoencoder.parameters())  # processors may differ in the last bit

    def statistics(self) -> dict[str, float]:
        """Of the batches since the last call: usage and perplexity, and how many codes were revived."""
        health = codebook_statistics(self.counts)
        values = {"usage": health.usage, "perplexity": health.perplexity} if self.counts.sum() > 0 else {}
        revived = {"revived": float(self.revived)} if self.keeper.revives else {}
        self.counts.zero_()
        self.revived.zero_()
        return values | revived

    def adopt(self, state: MutableMapping[str, Tensor]) -> None:
        """Make the state dict of a run with other settings, or of an older version, one that fits.

        What it lacks starts anew, what is of no use any more is dropped; the codes themselves are the autoencoder's.
        """
        for old, new in OLD_NAMES.items():
            if old in state:
                state[new] = state.pop(old)
        own = {PREFIX + name: value for name, value in self.state_dict().items()}
        for surplus in [name for name in state if name.startswith(PREFIX) and name not in own]:
            del state[surplus]
        for name, value in own.items():
            state.setdefault(name, value)
