"""All measures of a clip, for test, validation and the command `score`.

A clip is measured while its frames go by, for all methods at once, so that its length does not matter for memory.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from difftalk_pl.data.sync import SyncCrop
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.image import DATA_RANGE, lpips, masked_mean, psnr, similarity_map
from difftalk_pl.evaluation.motion import MOUTH, acceleration, lmd, silent_frames, silent_motion
from difftalk_pl.evaluation.opening import dark_opening, true_opening
from difftalk_pl.evaluation.sync import SyncJudge, SyncStream, sync_scores
from difftalk_pl.faces.detect import MeasuredFaces
from difftalk_pl.models.perceptual import Network
from difftalk_pl.training.pretrained import MissingWeights, PerceptualDistance

log = logging.getLogger(__name__)

GROUND_TRUTH = "ground truth"  # the true video as a method
SYNC = ("sync_offset", "sync_confidence", "sync_distance")
FACES = ("lmd", "identity", "jitter_landmarks", "silent_motion")
OF_THE_MOUTH = ("mouth_psnr", "mouth_ssim", "mouth_lpips", "jitter_pixels", "opening_correlation")  # in the mask
ALL = ("psnr", "ssim", "lpips", *OF_THE_MOUTH[:3], *SYNC, *FACES, *OF_THE_MOUTH[3:])
CHUNK = 16  # frames that are compared at a time
DESCRIBED = 10  # every so many frames, a descriptor of the face
LOOKED_AT = 25  # every so many frames, whether there is a face at all
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


class ClipScore(NamedTuple):
    """Scores of one clip: null where a measure is undefined (infinite, or nothing to measure), or has failed.

    values: by the names of `ALL`; failed: reasons by measure; curve: SyncNet's mean distance at every shift.
    """

    values: dict[str, float | None]
    failed: dict[str, str]
    curve: list[float] | None = None


class Judge:
    """The networks that score generated clips against true ones, in 8 bits, as videos store them.

    Published weights of LPIPS may be absent, with a warning if `warn`; a file that was named may not.

    Raises:
        UserError: a file that was named is missing or not what it should be.
    """

    def __init__(self, measuring: Measuring, device: torch.device, warn: bool = True) -> None:
        self.device, self.faces = device, MeasuredFaces() if measuring.faces else None
        sync = measuring.syncnet
        self.sync = None if sync is None else SyncJudge(sync, measuring.sync_crop, device)
        self.lpips: PerceptualDistance | None = None
        self.lpips_protocol: dict[str, Any] | None = None
        if (network := measuring.lpips) is not None:
            try:
                self.lpips = PerceptualDistance(network, measuring.lpips_weights, f"`lpips: {network}, lpips_weights`")
                about = self.lpips.to(device).describe()
                self.lpips_protocol = {**about, "mouth": "mean of the distance map where the mask is 1"}
            except MissingWeights as missing:
                if measuring.lpips_weights is not None:
                    raise
                self.lpips_protocol = {"network": network, "not_measured": f"no weights of {network}"}
                if warn:
                    log.warning("LPIPS is not measured: %s", missing)

    def describe(self) -> dict[str, Any]:
        """Return what these numbers have to be published with."""
        return {
            "frames": "8 bit RGB",
            "data_range": DATA_RANGE,
            "ssim": "Gaussian window 11, sigma 1.5, mirrored at the border",
            "lpips": self.lpips_protocol,
            "sync": None if self.sync is None else self.sync.describe(),
            "faces": DLIB if self.faces else None,
        }


@dataclass
class _Method:
    """What is known of one method's frames.

    numbers: of every frame, by measure; jitter: sums of the generated and of the true video; last_two: pixels and mask;
    points, descriptors: by dlib; faces_found: of the frames that were looked at; lips: for SyncNet.
    """

    lips: SyncStream | None
    numbers: dict[str, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    jitter: Any = 0
    last_two: list[Tensor] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    descriptors: list[np.ndarray] = field(default_factory=list)
    faces_found: list[bool] = field(default_factory=list)


class ClipJudge:
    """One clip while its frames go by, in order.

    Args:
        frames: T, how many will come at most.
        size: side of the frames in pixels.
        landmarks: (T, 68, 2) of the true video, fractions of the side, or None.
        no_mask: why the measures of the mouth are missing, if they are.
    """

    def __init__(
        self, judge: Judge, frames: int, size: int, landmarks: np.ndarray | None, no_mask: str | None = None
    ) -> None:
        self.judge, self.frames, self.size, self.no_mask, self.seen = judge, frames, size, no_mask, 0
        self.landmarks = None if landmarks is None else np.array(landmarks[:frames])
        self.follows_lips = judge.sync is not None and (landmarks is not None or judge.sync.crop == "whole_frame")
        self.methods: dict[str, _Method] = {}

    def add(self, true: np.ndarray, generated: Mapping[str, np.ndarray], mask: np.ndarray | None) -> None:
        """Measure the next frames of every method, and of the true video itself as the ground truth.

        Args:
            true, generated: (n, H, W, 3) uint8.
            mask: (n, H, W) bool, the generated region.
        """
        for start in range(0, len(true), CHUNK):
            part = slice(start, start + CHUNK)
            numbers = self.seen + np.arange(len(true[part]))
            known = None if self.landmarks is None else self.landmarks[numbers]
            for name, frames in {GROUND_TRUTH: true, **generated}.items():
                if name not in self.methods:
                    sync = self.judge.sync if self.follows_lips else None
                    lips = None if sync is None else SyncStream(sync, self.landmarks, self.size)
                    self.methods[name] = _Method(lips)
                method = self.methods[name]
                hidden = None if mask is None else mask[part]
                self._compare(method, frames[part], true[part], mask=hidden, known=known)
                if method.lips is not None:
                    method.lips.add(frames[part])
                if self.judge.faces is not None and known is not None:
                    points = self.judge.faces.landmarks(frames[part], known)
                    described = numbers % DESCRIBED == 0
                    method.points.append(points)
                    method.descriptors.append(self.judge.faces.descriptors(frames[part][described], points[described]))
                    for place in np.flatnonzero(numbers % LOOKED_AT == 0):
                        method.faces_found.append(self.judge.faces.finds_face(frames[part][place], known[place]))
            self.seen += len(numbers)

    @torch.no_grad()
    def _compare(self, method: _Method, *frames: np.ndarray, mask: np.ndarray | None, known: np.ndarray | None) -> None:
        """Compare pixels of generated and true frames: the whole frame and the generated region."""
        device, network = self.judge.device, self.judge.lpips
        pixels = [torch.from_numpy(np.ascontiguousarray(part)).float().to(device) for part in frames]
        one, other = (part.movedim(-1, 1) / 127.5 - 1 for part in pixels)
        similarity, layers = similarity_map(one, other), None if network is None else network.layers(one, other)
        regions: dict[str, Tensor | None] = {"": None}
        if mask is not None:
            hidden = torch.from_numpy(mask).to(device)
            regions["mouth_"] = hidden[:, None]
            parts = [pixels[0].mean(-1), pixels[1].mean(-1), hidden]
            if method.last_two:  # second differences reach back two frames into the chunk before
                parts = [torch.cat(pair) for pair in zip(method.last_two, parts)]
            method.jitter += torch.stack([acceleration(part, parts[2]) for part in parts[:2]]).cpu()
            method.last_two = [part[-2:] for part in parts]
        found = {}
        for prefix, region in regions.items():
            found[f"{prefix}psnr"], found[f"{prefix}ssim"] = psnr(one, other, region), masked_mean(similarity, region)
            if layers is not None:
                found[f"{prefix}lpips"] = lpips(layers, region)
        if known is not None:
            points = torch.from_numpy(known).to(device)
            found |= {"seen_opening": dark_opening(one, points), "true_opening": true_opening(points)}
        for name, values in found.items():
            method.numbers[name].append(values.double().cpu())

    def scores(self, samples: Mapping[str, np.ndarray | None]) -> dict[str, ClipScore]:
        """Return the scores by method. `samples`: sound of each, (frames * 640,) int16 at 16 kHz, or None."""
        scores = {}
        for name, method in self.methods.items():
            numbers = {measure: torch.cat(chunks) for measure, chunks in method.numbers.items()}
            means: dict[str, Any] = {measure: values.mean() for measure, values in numbers.items()}
            if method.last_two:
                means["jitter_pixels"] = method.jitter[0] / method.jitter[1]
            if "seen_opening" in numbers:
                openings = torch.stack([numbers["seen_opening"], numbers["true_opening"]])
                means["opening_correlation"] = torch.corrcoef(openings)[0, 1]
            failed = {} if self.no_mask is None else dict.fromkeys(OF_THE_MOUTH, self.no_mask)
            for measures, measure_all in ((FACES, self._faces), (SYNC, self._sync)):
                try:
                    means |= measure_all(method, samples[name])
                except UserError as error:
                    failed |= dict.fromkeys(measures, str(error))
            values = {measure: float(means.get(measure, np.nan)) for measure in ALL}
            finite = {measure: value if np.isfinite(value) else None for measure, value in values.items()}
            scores[name] = ClipScore(finite, failed, means.get("curve"))
        return scores

    def _sync(self, method: _Method, samples: np.ndarray | None) -> dict[str, Any]:
        if self.judge.sync is None:
            return {}
        if method.lips is None:
            raise UserError("no landmarks, and face_crop follows the face by them; whole_frame needs none")
        scores = sync_scores(*method.lips.finish(samples))
        return {**dict(zip(SYNC, scores)), "curve": scores.curve.tolist()}

    def _faces(self, method: _Method, samples: np.ndarray | None) -> dict[str, Any]:
        if self.judge.faces is None:
            return {}
        if self.landmarks is None:
            raise UserError("no landmarks of the true video")
        if (found := sum(method.faces_found)) * 2 < (looked_at := len(method.faces_found)):
            raise UserError(f"dlib finds a face in {found} of the {looked_at} frames that were looked at")
        both = (method, self.methods[GROUND_TRUTH])
        ours, theirs = (torch.from_numpy(np.concatenate(each.points)).double() for each in both)
        one, other = [torch.from_numpy(np.concatenate(each.descriptors)).double() for each in both]
        measured: dict[str, Any] = {
            "lmd": lmd(ours, theirs).mean(),
            "identity": cosine_similarity(one, other).mean(),
            "jitter_landmarks": acceleration(ours[:, MOUTH]) / acceleration(theirs[:, MOUTH]),
        }
        if samples is not None:
            measured["silent_motion"] = silent_motion(ours, silent_frames(samples)).mean()
        return measured
