"""The codebook during stage 1, over all processes: warm-up and k-means start, updates, statistics."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor, nn

from difftalk_pl.errors import UserError
from difftalk_pl.models.autoencoder import Autoencoder, Reconstruction
from difftalk_pl.models.codebook import Codebook, CodebookUpdate, code_use, codebook_statistics, step_generator


class CodebookTraining(nn.Module):
    """Follows the batches after the optimizer's step; several processes train as one would on their joined batches.

    Args:
        settings: of the codebook.
        codes: entries of the codebook.
        channels: of a latent.
    """

    counts: Tensor
    revived: Tensor
    cells: Tensor

    def __init__(self, settings: Codebook, codes: int, channels: int) -> None:
        super().__init__()
        if settings.warmup and settings.vectors < codes:
            raise UserError(f"codebook.vectors {settings.vectors}: k-means needs more for {codes} codes: {10 * codes}")
        self.settings = settings
        self.updates = CodebookUpdate(settings, codes, channels)
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.long), persistent=False)  # of this epoch
        self.register_buffer("revived", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("cells", torch.zeros(settings.vectors if settings.warmup else 0, channels))

    def follow(self, autoencoder: Autoencoder, output: Reconstruction, batch: int, strategy: Strategy) -> None:
        """Take in the output of batch number `batch`, counted from 0: of the warm-up, or quantised."""
        cells = output.z.detach().movedim(1, -1).flatten(0, -2).float()
        if output.indices is None:
            self._collect(strategy.all_gather(cells).flatten(0, -2), batch)
            if batch == self.settings.warmup - 1:
                self._start(autoencoder, strategy)
            return
        counts, sums = code_use(cells, output.indices.flatten(), len(self.counts))
        counts = strategy.reduce(counts, reduce_op="sum")
        self.counts += counts.long()
        if self.settings.update == "ema" or self.updates.revives:
            self.updates.follow(autoencoder.codes.data, counts, strategy.reduce(sums, reduce_op="sum"))
        if self.updates.revives:
            cells = strategy.all_gather(cells).flatten(0, -2)
            self.revived += self.updates.revive(autoencoder.codes.data, counts, cells, batch)

    def _collect(self, cells: Tensor, batch: int) -> None:
        """Keep some cells (N, C) of each batch in the second half of the warm-up, in a buffer that checkpoints hold."""
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
        autoencoder.load_state_dict(strategy.broadcast(autoencoder.state_dict()))

    def statistics(self) -> dict[str, float]:
        """Return usage, perplexity and the number of revived codes since the last call, which it resets."""
        usage, perplexity = codebook_statistics(self.counts)
        values = {"codebook_usage": usage, "codebook_perplexity": perplexity} if self.counts.sum() > 0 else {}
        revived = {"revived_codes": float(self.revived)} if self.updates.revives else {}
        self.counts.zero_()
        self.revived.zero_()
        return values | revived
