"""All measures of a clip, for test, validation and the command `score`.

A clip is measured while its frames go by, for all methods at once, so that its length does not matter for memory.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difftalk_pl.data.sync import SyncCrop
from difftalk_pl.evaluation.image import DATA_RANGE
from difftalk_pl.evaluation.method_judge import DESCRIBED, LOOKED_AT, ClipScore, MethodJudge, Networks, TrueChunk
from difftalk_pl.evaluation.sync_judge import SyncJudge
from difftalk_pl.faces.detect import MeasuredFaces
from difftalk_pl.models.perceptual import Network
from difftalk_pl.models.pretrained import MissingWeights
from difftalk_pl.training.perceptual import PerceptualDistance

log = logging.getLogger(__name__)

GROUND_TRUTH = "ground truth"  # the true video as a method
CHUNK = 16  # frames that are compared at a time
LPIPS_OPTION = "`--trainer.callbacks+=Evaluation --trainer.callbacks.lpips={} --trainer.callbacks.lpips_weights=FILE`"
DLIB = {
    "by": "dlib: 68 points in boxes of the true video's landmarks; descriptors of the face recognition network",
    "lmd": "mean over mouth points and frames, pixels of a 256 pixel frame",
    "identity": f"mean cosine of descriptors, every {DESCRIBED} frames",
    "jitter": "second difference over time, relative to the true video",
}


@dataclass
class Measuring:
    """What is measured beside PSNR and SSIM.

    Args:
        lpips: network of the perceptual measure; null does not measure it.
        lpips_weights: its file; without one, the published file in $TORCH_HOME/hub/checkpoints.
        syncnet: the published syncnet_v2.model, or a checkpoint or folder of SyncNetTraining; without one, lip sync is
            not measured.
        sync_crop: what SyncNet sees of a frame. Scores of different crops are different measures.
        faces: landmark distance, identity and motion, by dlib on both videos.
    """

    lpips: Network | None = "alex"
    lpips_weights: Path | None = None
    syncnet: Path | None = None
    sync_crop: SyncCrop = "face_crop"
    faces: bool = True


class Judge:
    """Scores generated clips against true ones, in 8 bits, as anybody's video has them.

    Args:
        warn: about missing weights; of several processes one should.
        lpips_option: how the user of this program names a file for LPIPS.

    Raises:
        UserError: a file that was named is missing or not what it should be.
    """

    def __init__(
        self, measuring: Measuring, device: torch.device, warn: bool = True, lpips_option: str = LPIPS_OPTION
    ) -> None:
        distance, self.lpips_protocol = _open_lpips(measuring, device, warn, lpips_option)
        sync = None if measuring.syncnet is None else SyncJudge(measuring.syncnet, measuring.sync_crop).to(device)
        self.networks = Networks(device, distance, sync, MeasuredFaces() if measuring.faces else None)

    def describe(self) -> dict[str, Any]:
        """Return what these numbers have to be published with."""
        return {
            "frames": "8 bit RGB",
            "data_range": DATA_RANGE,
            "ssim": "Gaussian window 11, sigma 1.5, mirrored at the border",
            "lpips": self.lpips_protocol,
            "sync": None if self.networks.sync is None else self.networks.sync.describe(),
            "faces": DLIB if self.networks.faces else None,
        }

    def open(self, frames: int, size: int, landmarks: np.ndarray | None) -> "ClipJudge":
        """Begin a clip; arguments as for ClipJudge."""
        return ClipJudge(self.networks, frames, size, landmarks)


class ClipJudge:
    """One clip while its frames go by, in order.

    Args:
        frames: T, how many will come at most.
        size: side of the frames in pixels.
        landmarks: (T, 68, 2) of the true video, fractions of the side, or None.
    """

    def __init__(self, networks: Networks, frames: int, size: int, landmarks: np.ndarray | None) -> None:
        self.networks, self.frames, self.size, self.landmarks = networks, frames, size, landmarks
        self.seen = 0
        self.methods: dict[str, MethodJudge] = {}

    def add(self, true: np.ndarray, generated: Mapping[str, np.ndarray], mask: np.ndarray | None) -> None:
        """Measure the next frames, (n, H, W, 3) uint8, of every method; an array that is `true` itself is the ground
        truth. `mask`: (n, H, W) bool, the generated region."""
        for start in range(0, len(true), CHUNK):
            part = slice(start, start + CHUNK)
            chunk = self._chunk(true[part], None if mask is None else mask[part])
            for name, frames in generated.items():
                if name not in self.methods:
                    self.methods[name] = MethodJudge(self.networks, self.frames, self.size, self.landmarks)
                self.methods[name].add(chunk.true if frames is true else frames[part], chunk)
            self.seen += len(chunk.true)

    def _chunk(self, true: np.ndarray, mask: np.ndarray | None) -> TrueChunk:
        """Prepare what all methods need of the true frames."""
        numbers = self.seen + np.arange(len(true))
        described, looked_at = (np.flatnonzero(numbers % every == 0) for every in (DESCRIBED, LOOKED_AT))
        known = None if self.landmarks is None else np.array(self.landmarks[numbers])
        points = descriptors = None
        if (faces := self.networks.faces) is not None and known is not None:
            points = faces.landmarks(true, known)
            descriptors = faces.descriptors(true[described], points[described])
        return TrueChunk(true, mask, known, described, looked_at, points, descriptors)

    def scores(self, samples: Mapping[str, np.ndarray | None]) -> dict[str, ClipScore]:
        """Return the scores by method. `samples`: sound of each, (frames * 640,) int16 at 16 kHz, or None."""
        return {name: method.score(samples[name]) for name, method in self.methods.items()}


def _open_lpips(
    measuring: Measuring, device: torch.device, warn: bool, option: str
) -> tuple[PerceptualDistance | None, dict[str, Any] | None]:
    """Open LPIPS and describe it. Published weights may be absent, a file that was named may not."""
    if measuring.lpips is None:
        return None, None
    try:
        distance = PerceptualDistance(measuring.lpips, measuring.lpips_weights, option.format(measuring.lpips))
    except MissingWeights as missing:
        if measuring.lpips_weights is not None:
            raise
        if warn:
            log.warning("LPIPS is not measured: %s", missing)
        return None, {"network": measuring.lpips, "not_measured": f"no weights of {measuring.lpips}"}
    return distance.to(device), {**distance.describe(), "mouth": "mean of the distance map where the mask is 1"}
