"""Per-frame scores of several methods, gathered over processes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from difftalk_pl.metrics.frames import psnr, ssim
from difftalk_pl.metrics.opening import dark_opening, true_opening
from difftalk_pl.metrics.perceptual import lpips, masked_lpips

MEASURES = ("psnr", "ssim", "mouth_psnr", "mouth_ssim", "opening", "true_opening", "lpips", "mouth_lpips")
AVERAGED = ("psnr", "ssim", "lpips", "mouth_psnr", "mouth_ssim", "mouth_lpips")  # over a clip's frames


def frame_scores(
    generated: Tensor,
    true: Tensor,
    mask: Tensor | None,
    landmarks: Tensor | None,
    layers: Sequence[Tensor] | None = None,
) -> Tensor:
    """All measures of every frame, (B, 8) float64 in the order of `MEASURES`.

    A measure is nan without what it needs: mask, landmarks, or the maps of a perceptual network of the two frames.
    """
    unknown = torch.full((len(true),), float("nan"), dtype=torch.float64, device=true.device)
    columns = [psnr(generated, true), ssim(generated, true)]
    columns += [unknown] * 2 if mask is None else [psnr(generated, true, mask), ssim(generated, true, mask)]
    if landmarks is None:
        columns += [unknown] * 2
    else:
        columns += [dark_opening(generated, landmarks).double(), true_opening(landmarks).double()]
    columns.append(unknown if layers is None else lpips(layers))
    columns.append(unknown if layers is None or mask is None else masked_lpips(layers, mask))
    return torch.stack(columns, dim=1)


class FrameScores(Metric):
    """Keeps the scores of every frame, so that any mean over clips or correlation over time can be formed after.

    `compute` returns (N, 2 + 8): number of the clip, frame, and the measures, sorted by clip and frame.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, clips: Sequence[int], frames: Tensor, scores: Tensor) -> None:
        """Numbers of the clips (B,), frames (B,), `frame_scores` (B, 8)."""
        where = torch.stack([torch.as_tensor(clips).to(frames), frames], dim=1)
        self.rows.append(torch.cat([where.double(), scores.double()], dim=1))

    def compute(self) -> Tensor:
        rows = torch.cat(list(self.rows)) if isinstance(self.rows, list) else self.rows
        order = sorted(range(len(rows)), key=lambda i: (float(rows[i, 0]), float(rows[i, 1])))
        return rows[order]
