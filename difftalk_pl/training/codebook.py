"""The codebook in training, over all processes: warm-up and k-means start, moving means, revival, statistics."""

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.ranks import gathered, same_as_first, summed
from difftalk_pl.models.autoencoder import Autoencoder, Reconstruction
from difftalk_pl.models.codebook import Codebook, CodebookKeeper, code_use, codebook_statistics, step_generator

PREFIX = "codebook."  # of its buffers in a checkpoint
VECTORS_PER_CODE = 10  # in advice: k-means wants several
OLD_NAMES = {"warmup_cells": PREFIX + "cells"}


class CodebookTraining(nn.Module):
    """Sees every batch after the optimizer's step. What it learns is that of one process with the batches of all.

    Only the end of the warm-up and `statistics`, once an epoch, read numbers back from the device. To it go numbers of
    drawn cells: in a batch of the warm-up those that k-means is to see, with revival as many as there are codes.

    Raises UserError where the warm-up would collect fewer vectors than there are codes.
    """

    counts: Tensor
    revived: Tensor
    cells: Tensor

    def __init__(self, settings: Codebook, codes: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self._refuse_few_vectors(codes)
        self.keeper = CodebookKeeper(settings, codes, channels)
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.long), persistent=False)
        self.register_buffer("revived", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("cells", torch.zeros(settings.vectors if settings.warmup else 0, channels))

    def _refuse_few_vectors(self, codes: int) -> None:
        settings = self.settings
        collected = min(self._per_batch * (settings.warmup - settings.warmup // 2), settings.vectors)
        if settings.warmup and collected < codes:
            raise UserError(
                f"codebook.vectors {settings.vectors}: a warm-up of {settings.warmup} batches collects {collected} for "
                f"{codes} codes; give more, such as {VECTORS_PER_CODE * codes}"
            )

    @property
    def _per_batch(self) -> int:
        """How many cells k-means sees of each batch in the second half of the warm-up."""
        return max(self.settings.vectors // max(self.settings.warmup - self.settings.warmup // 2, 1), 1)

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
        per_batch = self._per_batch
        start = (batch - self.settings.warmup // 2) * per_batch
        if start >= 0:
            cells = gathered(cells)
            drawn = torch.randperm(len(cells), generator=step_generator(self.settings.seed, batch))[:per_batch]
            room = self.cells[start : start + per_batch]
            room[: len(drawn)] = cells[drawn.to(cells.device, non_blocking=True)][: len(room)]

    def _start(self, autoencoder: Autoencoder) -> None:
        """End of the warm-up: latents to unit variance, k-means as codebook. Raises UserError with too few cells."""
        cells = self.cells[self.cells.abs().sum(1) > 0]
        try:
            autoencoder.initialise_codebook(autoencoder.normalise_latents(cells), self.settings.seed)
        except ValueError as error:
            raise UserError(
                f"codebook.warmup {self.settings.warmup}: it ends without a codebook: {error}, larger batches or a "
                "longer warm-up"
            ) from error
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
