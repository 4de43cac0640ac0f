"""All measures of a clip: what test, validation and the command `score` have in common.

A clip is judged while its frames go by, for all methods at once, so that memory does not grow with its length.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from difftalk_pl.data.lip_sync import SyncCrop
from difftalk_pl.evaluation.frames import DATA_RANGE
from difftalk_pl.evaluation.method_judge import ALL, DESCRIBED, LOOKED_AT, MethodJudge, Tools, TrueChunk
from difftalk_pl.evaluation.sync_judge import SyncJudge
from difftalk_pl.faces.detect import MeasuredFaces
from difftalk_pl.models.perceptual import Network
from difftalk_pl.models.pretrained import MissingWeights
from difftalk_pl.training.perceptual import PerceptualDistance

log = logging.getLogger(__name__)

GROUND_TRUTH = "ground truth"  # the true video as a method
CHUNK = 16  # frames that are compared at a time
LPIPS_OPTION = "`--trainer.callbacks+=Evaluation --trainer.callbacks.lpips={} --trainer.callbacks.lpips_weights=FILE`"


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


class ClipScore(NamedTuple):
    """Scores of one clip: null where a measure is undefined (infinite, or nothing to measure), or has failed.

    values: by the names of `ALL`; failed: reasons by measure; curve: SyncNet's mean distance at every shift.
    """

    values: dict[str, float | None]
    failed: dict[str, str]
    curve: list[float] | None = None

    @classmethod
    def nothing(cls, reason: str) -> "ClipScore":
        """Of a clip that could not be judged at all."""
        return cls(dict.fromkeys(ALL), dict.fromkeys(ALL, reason))


class ClipFacts(NamedTuple):
    """What is known of a clip before its first frame.

    name: for messages; frames: T; landmarks: (T, 68, 2) of the true video, fractions of the side, or None.
    """

    name: str
    frames: int
    size: int
    landmarks: np.ndarray | None


class Judge:
    """Scores generated clips against true ones. Frames are 8-bit, as anybody's video has them.

    Args:
        measuring: what.
        device: of the networks.
        speaks: warns of missing weights; of several processes one should.
        lpips_option: how the user of this program names a file for LPIPS.

    Raises:
        UserError: a file that was named is missing or not what it should be.
    """

    def __init__(
        self, measuring: Measuring, device: torch.device, speaks: bool = True, lpips_option: str = LPIPS_OPTION
    ) -> None:
        distance, self.lpips_protocol = _open_lpips(measuring, device, speaks, lpips_option)
        sync = None if measuring.syncnet is None else SyncJudge(measuring.syncnet, measuring.sync_crop).to(device)
        self.tools = Tools(device, distance, sync, MeasuredFaces() if measuring.faces else None)

    def describe(self) -> dict[str, Any]:
        """What these numbers have to be published with."""
        faces = {
            "by": "dlib: 68 points in boxes of the true video's landmarks; descriptors of the face recognition network",
            "lmd": "mean over mouth points and frames, pixels of a 256 pixel frame",
            "identity": f"mean cosine of descriptors, every {DESCRIBED} frames",
            "jitter": "second difference over time, relative to the true video",
        }
        return {
            "frames": "8 bit RGB",
            "data_range": DATA_RANGE,
            "ssim": "Gaussian window 11, sigma 1.5, mirrored at the border",
            "lpips": self.lpips_protocol,
            "sync": None if self.tools.sync is None else self.tools.sync.describe(),
            "faces": faces if self.tools.faces else None,
        }

    def open(self, facts: ClipFacts) -> "ClipJudge":
        return ClipJudge(self.tools, facts)


class ClipJudge:
    """One clip while its frames go by, in order."""

    def __init__(self, tools: Tools, facts: ClipFacts) -> None:
        self.tools, self.facts = tools, facts
        self.seen = 0
        self.methods: dict[str, MethodJudge] = {}

    def add(self, true: np.ndarray, generated: Mapping[str, np.ndarray], mask: np.ndarray | None) -> None:
        """The next frames, (n, H, W, 3) uint8, of the true video and of every method; mask (n, H, W) bool is the
        generated region. A method whose array is the true one itself is the ground truth."""
        for start in range(0, len(true), CHUNK):
            part = slice(start, start + CHUNK)
            chunk = self._chunk(true[part], None if mask is None else mask[part])
            for name, frames in generated.items():
                if name not in self.methods:
                    self.methods[name] = MethodJudge(self.tools, self.facts)
                self.methods[name].add(chunk.true if frames is true else frames[part], chunk)
            self.seen += len(chunk.true)

    def _chunk(self, true: np.ndarray, mask: np.ndarray | None) -> TrueChunk:
        """What all methods need of the true frames, made once."""
        landmarks = self.facts.landmarks
        known = None if landmarks is None else np.asarray(landmarks[self.seen : self.seen + len(true)])
        chunk = TrueChunk(true, mask, known, self.seen)
        if self.tools.faces is None or known is None:
            return chunk
        points = self.tools.faces.landmarks(true, known)
        described = chunk.every(DESCRIBED)
        descriptors = self.tools.faces.descriptors(true[described], points[described])
        return chunk._replace(points=points, descriptors=descriptors, looked_at=chunk.every(LOOKED_AT))

    def scores(self, samples: Mapping[str, np.ndarray | None]) -> dict[str, ClipScore]:
        """By method. `samples` is the sound of each, (T * 640,) int16 at 16 kHz, or None where there is none."""
        return {name: ClipScore(*method.scores(samples[name])) for name, method in self.methods.items()}


def _open_lpips(measuring: Measuring, device: torch.device, speaks: bool, option: str):
    """Published weights may be absent, a file that was named may not."""
    if measuring.lpips is None:
        return None, None
    try:
        distance = PerceptualDistance(measuring.lpips, measuring.lpips_weights, option.format(measuring.lpips)).to(
            device
        )
    except MissingWeights as missing:
        if measuring.lpips_weights is not None:
            raise
        if speaks:
            log.warning("LPIPS is not measured: %s", missing)
        return None, {"network": measuring.lpips, "not_measured": f"no weights of {measuring.lpips}"}  # on any machine
    return distance, {**distance.describe(), "mouth": "mean of the distance map where the mask is 1"}
