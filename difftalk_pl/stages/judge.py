"""All measures of one clip: what test, validation and the command `score` have in common."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from difftalk_pl.data.measured_faces import MeasuredFaces
from difftalk_pl.errors import UserError
from difftalk_pl.metrics.identity import similarity
from difftalk_pl.metrics.landmarks import lmd
from difftalk_pl.metrics.motion import jitter, silent_frames, silent_motion
from difftalk_pl.metrics.opening import correlation
from difftalk_pl.metrics.scores import MEASURES, frame_scores
from difftalk_pl.models.perceptual import Network
from difftalk_pl.pretrained import MissingWeights
from difftalk_pl.stages.perceptual import PerceptualDistance
from difftalk_pl.stages.sync_judge import SyncJudge

log = logging.getLogger(__name__)

LPIPS_OPTION = "`--trainer.callbacks+=Evaluation --trainer.callbacks.lpips={} --trainer.callbacks.lpips_weights=FILE`"
AVERAGED = ("psnr", "ssim", "lpips", "mouth_psnr", "mouth_ssim", "mouth_lpips")  # over a clip's frames
SYNC = ("sync_offset", "sync_confidence", "sync_distance")
FACES = ("lmd", "identity", "jitter_landmarks", "silent_motion")
ALL = (*AVERAGED, *SYNC, "lmd", "identity", "jitter_landmarks", "jitter_pixels", "silent_motion", "opening_correlation")
CHUNK = 16  # frames that are compared at a time
MOUTH = slice(48, 68)
SyncCrop = Literal["face_crop", "whole_frame"]


@dataclass
class Measuring:
    """What is measured.

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
        self.measuring, self.device = measuring, device
        self.distance, self.lpips_protocol = _open_lpips(measuring, device, speaks, lpips_option)
        self.sync = None if measuring.syncnet is None else SyncJudge(measuring.syncnet, measuring.sync_crop).to(device)
        self.faces = MeasuredFaces() if measuring.faces else None
        self._true: tuple[np.ndarray, Any] | None = None  # of the clip at hand, measured once for all methods

    def describe(self) -> dict[str, Any]:
        """What these numbers have to be published with."""
        faces = "68 points and descriptors of dlib; lmd in pixels of a 256 pixel frame; jitter relative to the true video"
        return {
            "frames": "8 bit RGB",
            "data_range": 2.0,
            "ssim": "Gaussian window 11, sigma 1.5",
            "lpips": self.lpips_protocol,
            "sync": None if self.sync is None else self.sync.describe(),
            "faces": faces if self.faces else None,
        }

    def score(
        self,
        generated: np.ndarray,
        true: np.ndarray,
        samples: np.ndarray | None,
        landmarks: np.ndarray | None,
        mask: np.ndarray | None,
    ) -> ClipScore:
        """One clip. What cannot be measured is null and, where that is a failure, named with its reason.

        Args:
            generated, true: (T, H, W, 3) uint8.
            samples: (T * 640,) int16 at 16 kHz, the sound of `generated`.
            landmarks: (T, 68, 2), fractions of the side, of `true`.
            mask: (T, H, W) bool, the generated region.
        """
        values: dict[str, float | None] = dict.fromkeys(ALL)
        failed: dict[str, str] = {}
        values |= self._frames(generated, true, landmarks, mask)
        if mask is not None:
            values["jitter_pixels"] = _known(jitter(_grey(generated), _grey(true), torch.from_numpy(mask)))
        curve: list[float] | None = None
        if self.sync is not None:
            found, curve = _attempt(SYNC, failed, lambda: self._sync(generated, samples, landmarks)) or ({}, None)
            values |= found
        if self.faces is not None:
            values |= _attempt(FACES, failed, lambda: self._faces(generated, true, samples, landmarks)) or {}
        return ClipScore(values, failed, curve)

    @torch.no_grad()
    def _frames(self, generated, true, landmarks, mask) -> dict[str, float | None]:
        """Means over frames, and how the seen opening follows the known one."""
        rows = []
        for start in range(0, len(true), CHUNK):
            part = slice(start, start + CHUNK)
            one, other = (_signed(frames[part]).to(self.device) for frames in (generated, true))
            hidden = None if mask is None else torch.from_numpy(mask[part, None]).float().to(self.device)
            points = None if landmarks is None else torch.from_numpy(np.array(landmarks[part])).to(self.device)
            layers = None if self.distance is None else self.distance.layers(one, other)
            rows.append(frame_scores(one, other, hidden, points, layers).cpu())
        columns = dict(zip(MEASURES, torch.cat(rows).unbind(1)))
        values = {name: _known(columns[name].mean()) for name in AVERAGED}
        return values | {"opening_correlation": _known(correlation(columns["opening"], columns["true_opening"]))}

    def _sync(self, generated, samples, landmarks) -> tuple[dict[str, float | None], list[float]]:
        assert self.sync is not None
        if samples is None:
            raise UserError("no sound")
        scores = self.sync.score(generated, samples, landmarks)
        return dict(zip(SYNC, map(float, scores[:3]))), [float(value) for value in scores.curve]

    def _faces(self, generated, true, samples, landmarks) -> dict[str, float | None]:
        assert self.faces is not None
        if landmarks is None:
            raise UserError("no landmarks of the true video")
        if self._true is None or self._true[0] is not true:
            points = self.faces.landmarks(true, landmarks)
            self._true = true, (points, self.faces.descriptors(true, points))
        there, known = self._true[1]
        if generated is true:
            here, described = there, known
        else:
            if not self.faces.has_face(generated):
                raise UserError("no face found in the generated frames")
            here = self.faces.landmarks(generated, landmarks)
            described = self.faces.descriptors(generated, here)
        ours, theirs = torch.from_numpy(here).double(), torch.from_numpy(there).double()
        still = None if samples is None else silent_frames(samples, len(true))
        return {
            "lmd": _known(lmd(ours, theirs)),
            "identity": _known(similarity(torch.from_numpy(described), torch.from_numpy(known))),
            "jitter_landmarks": _known(jitter(ours[:, MOUTH], theirs[:, MOUTH])),
            "silent_motion": None if still is None else _known(silent_motion(ours, still)),
        }


def _open_lpips(measuring: Measuring, device: torch.device, speaks: bool, option: str):
    """Published weights may be absent, a file that was named may not."""
    if measuring.lpips is None:
        return None, None
    try:
        distance = PerceptualDistance(
            measuring.lpips, measuring.lpips_weights, option.format(measuring.lpips)
        ).to(device)
    except MissingWeights as missing:
        if measuring.lpips_weights is not None:
            raise
        if speaks:
            log.warning("LPIPS is not measured: %s", missing)
        return None, {"network": measuring.lpips, "not_measured": str(missing)}
    return distance, {**distance.describe(), "mouth": "mean of the distance map where the mask is 1"}


def _attempt(measures: tuple[str, ...], failed: dict[str, str], measure: Callable[[], Any]) -> Any:
    """What `measure` gives, or None and its reason for every one of the measures."""
    try:
        return measure()
    except UserError as error:
        failed |= dict.fromkeys(measures, str(error))
        return None


def _signed(frames: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, H, W) in [-1, 1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "t h w c -> t c h w").float() / 127.5 - 1


def _grey(frames: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, H, W), the mean of the colours."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().mean(-1)


def _known(value: Tensor | float) -> float | None:
    """null for what is not finite."""
    number = float(value)
    return number if np.isfinite(number) else None
