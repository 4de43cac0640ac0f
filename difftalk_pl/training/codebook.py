"""The codebook during stage 1, over all processes: warm-up and k-means start, moving means, revival, statistics."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, Reconstruction
from difftalk_pl.models.codebook import Codebook, code_use, codebook_statistics, step_generator

SMOOTHING = 1e-5  # of the counts: Laplace, as in VQ-VAE


class CodebookTraining(nn.Module):
    """Follows the batches after the optimizer's step; several processes train as one would on their joined batches.

    The buffers belong to the run's checkpoint, not to the autoencoder.
    """

    usage: Tensor
    sums: Tensor
    idle: Tensor
    cells: Tensor
    counts: Tensor
    revived: Tensor

    def __init__(self, settings: Codebook, codes: int, channels: int) -> None:
        super().__init__()
        if settings.warmup and settings.vectors < codes:
            raise UserError(f"codebook.vectors {settings.vectors}: k-means needs more for {codes} codes: {10 * codes}")
        self.settings = settings
        self.revives = settings.revive_after > 0 or settings.revive_below > 0
        self.register_buffer("usage", torch.zeros(codes))  # moving counts
        self.register_buffer("sums", torch.zeros(codes, channels))  # moving sums of the cells
        self.register_buffer("idle", torch.zeros(codes, dtype=torch.long))  # batches since the last use
        self.register_buffer("cells", torch.zeros(settings.vectors if settings.warmup else 0, channels))
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.long), persistent=False)  # of this epoch
        self.register_buffer("revived", torch.zeros((), dtype=torch.long), persistent=False)

    @torch.no_grad()
    def follow(self, autoencoder: Autoencoder, output: Reconstruction, batch: int, strategy: Strategy) -> None:
        """Take in the output of batch number `batch`, counted from 0: of the warm-up, or quantised."""
        cells = output.z.movedim(1, -1).flatten(0, -2).float()
        if output.indices is None:
            self._collect(strategy.all_gather(cells).flatten(0, -2), batch)
            if batch == self.settings.warmup - 1:
                self._start(autoencoder, strategy)
            return
        counts, sums = code_use(cells, output.indices.flatten(), len(self.counts))
        counts = strategy.reduce(counts, reduce_op="sum")
        self.counts += counts.long()
        if self.settings.update == "ema" or self.revives:
            self._average(autoencoder.codes.data, counts, strategy.reduce(sums, reduce_op="sum"))
        if self.revives:
            self._revive(autoencoder.codes.data, counts, strategy.all_gather(cells).flatten(0, -2), batch)

    def _collect(self, cells: Tensor, batch: int) -> None:
        """Keep some cells (N, C) of each batch in the second half of the warm-up."""
        first = self.settings.warmup // 2
        per_batch = max(self.settings.vectors // (self.settings.warmup - first), 1)
        start = (batch - first) * per_batch
        if start >= 0:
            drawn = torch.randperm(len(cells), generator=step_generator(self.settings.seed, batch))[:per_batch]
            free = self.cells[start : start + per_batch]
            free[: len(drawn)] = cells[drawn.to(cells.device)][: len(free)]

    def _start(self, autoencoder: Autoencoder, strategy: Strategy) -> None:
        """End the warm-up: latents to unit variance, k-means as codebook, the same in all processes."""
        cells = self.cells[self.cells.abs().sum(1) > 0]
        autoencoder.initialise_codebook(autoencoder.normalise_latents(cells), self.settings.seed)
        first = {name: value.cpu() for name, value in autoencoder.state_dict().items()}
        autoencoder.load_state_dict(strategy.broadcast(first))

    def _average(self, codes: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Update moving counts (codes,) and sums (codes, C), and with ema the codes in place.

        N' = d N + (1 - d) n, m' = d m + (1 - d) s, code = m' / N', with Laplace-smoothed N'. VQ-VAE, equations 6 to 8.
        They start as if every code had been chosen equally often.
        """
        decay, first, share = self.settings.ema_decay, self.usage.sum() == 0, counts.mean()
        self.sums.copy_(decay * torch.where(first, share * codes, self.sums) + (1 - decay) * sums)
        self.usage.copy_(decay * torch.where(first, share, self.usage) + (1 - decay) * counts)
        self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))
        if self.settings.update == "ema":
            total = self.usage.sum()
            smoothed = (self.usage + SMOOTHING) / (total + len(codes) * SMOOTHING) * total
            codes.copy_(self.sums / smoothed[:, None])

    def _revive(self, codes: Tensor, counts: Tensor, cells: Tensor, batch: int) -> None:
        """Move unused codes (codes, C), in place, to cells (N, C) drawn from (seed, batch)."""
        share, settings = counts.mean(), self.settings
        unused = self.usage < settings.revive_below * share
        if settings.revive_after:
            unused |= self.idle >= settings.revive_after
        drawn = torch.randperm(len(cells), generator=step_generator(settings.seed, batch))[: len(codes)]
        chosen = cells[drawn.to(cells.device)[(unused.cumsum(0) - 1) % len(drawn)]]
        codes.copy_(torch.where(unused[:, None], chosen, codes))
        self.usage.copy_(torch.where(unused, share, self.usage))
        self.sums.copy_(torch.where(unused[:, None], share * chosen, self.sums))
        self.idle.masked_fill_(unused, 0)
        self.revived += unused.sum()

    def statistics(self) -> dict[str, float]:
        """Return usage, perplexity and the number of revived codes since the last call, which it resets."""
        usage, perplexity = codebook_statistics(self.counts)
        values = {"codebook_usage": usage, "codebook_perplexity": perplexity} if self.counts.sum() > 0 else {}
        revived = {"revived_codes": float(self.revived)} if self.revives else {}
        self.counts.zero_()
        self.revived.zero_()
        return values | revived
