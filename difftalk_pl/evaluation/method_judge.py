"""One method's frames of one clip against the true ones, chunk by chunk."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.faces import MOUTH, identity_similarity, lmd
from difftalk_pl.evaluation.image import lpips, psnr, similarity_map, ssim
from difftalk_pl.evaluation.motion import acceleration, silent_frames, silent_motion
from difftalk_pl.evaluation.opening import correlation, dark_opening, true_opening
from difftalk_pl.evaluation.sync import sync_scores
from difftalk_pl.evaluation.sync_judge import SyncJudge
from difftalk_pl.faces.detect import MeasuredFaces
from difftalk_pl.training.perceptual import PerceptualDistance

FRAMES = ("psnr", "ssim", "lpips")
MOUTH_FRAMES = ("mouth_psnr", "mouth_ssim", "mouth_lpips")
MOUTH_MOTION = ("jitter_pixels", "opening_correlation")
SYNC = ("sync_offset", "sync_confidence", "sync_distance")
FACES = ("lmd", "identity", "jitter_landmarks", "silent_motion")
ALL = (*FRAMES, *MOUTH_FRAMES, *SYNC, *FACES, *MOUTH_MOTION)
OF_THE_MOUTH = (*MOUTH_FRAMES, *MOUTH_MOTION)  # need landmarks of the true video
DESCRIBED = 10  # every so many frames, a descriptor of the face
LOOKED_AT = 25  # every so many frames, whether there is a face at all


class ClipScore(NamedTuple):
    """Scores of one clip: null where a measure is undefined (infinite, or nothing to measure), or has failed.

    values: by the names of `ALL`; failed: reasons by measure; curve: SyncNet's mean distance at every shift.
    """

    values: dict[str, float | None]
    failed: dict[str, str]
    curve: list[float] | None = None

    @classmethod
    def nothing(cls, reason: str) -> "ClipScore":
        """Return the scores of a clip that could not be measured at all."""
        return cls(dict.fromkeys(ALL), dict.fromkeys(ALL, reason))


class Networks(NamedTuple):
    """What measures; a part that is None measures nothing."""

    device: torch.device
    distance: PerceptualDistance | None
    sync: SyncJudge | None
    faces: MeasuredFaces | None


class TrueChunk(NamedTuple):
    """True frames and what is known of them.

    true: (n, H, W, 3) uint8; mask: (n, H, W) bool; known: (n, 68, 2), the clip's landmarks; described, looked_at:
    places of the frames whose face gets a descriptor, and is looked for; points, descriptors: what dlib finds.
    """

    true: np.ndarray
    mask: np.ndarray | None
    known: np.ndarray | None
    described: np.ndarray
    looked_at: np.ndarray
    points: np.ndarray | None
    descriptors: np.ndarray | None


class MethodJudge:
    """Numbers of every frame by measure, and what the measures over time need."""

    def __init__(self, networks: Networks, frames: int, size: int, landmarks: np.ndarray | None) -> None:
        self.networks = networks
        self.failed: dict[str, str] = {}
        self.numbers: dict[str, list[Tensor]] = defaultdict(list)
        self.jitter = torch.zeros(2, dtype=torch.float64)  # sums of the generated and of the true video
        self.last_two: list[Tensor] = []
        self.points: list[tuple[np.ndarray, np.ndarray]] = []
        self.faces_found: list[bool] = []
        sync = networks.sync
        self.lips = None if sync is None else self._attempt(SYNC, lambda: sync.open(landmarks, frames, size))

    def add(self, generated: np.ndarray, chunk: TrueChunk) -> None:
        """Measure (n, H, W, 3) uint8 against the true frames of the chunk."""
        self._compare(generated, chunk)
        if self.lips is not None:
            self.lips.add(generated)
        if chunk.points is not None:
            self._find_faces(generated, chunk)

    def _keep(self, **numbers: Tensor) -> None:
        """Keep numbers of every frame, (n,) each."""
        for name, values in numbers.items():
            self.numbers[name].append(values.double().cpu())

    @torch.no_grad()
    def _compare(self, generated: np.ndarray, chunk: TrueChunk) -> None:
        """Compare pixels: the whole frame and the generated region."""
        device, distance = self.networks.device, self.networks.distance
        pixels = [
            torch.from_numpy(np.ascontiguousarray(frames)).float().to(device) for frames in (generated, chunk.true)
        ]
        one, other = (frames.movedim(-1, 1) / 127.5 - 1 for frames in pixels)
        layers = None if distance is None else distance.layers(one, other)
        similarity = similarity_map(one, other)
        self._keep(psnr=psnr(one, other), ssim=ssim(similarity), **({"lpips": lpips(layers)} if layers else {}))
        if chunk.mask is not None:
            mask = torch.from_numpy(chunk.mask).to(device)[:, None]
            self._keep(mouth_psnr=psnr(one, other, mask), mouth_ssim=ssim(similarity, mask))
            self._keep(**({"mouth_lpips": lpips(layers, mask)} if layers else {}))
            self._add_jitter(pixels[0].mean(-1), pixels[1].mean(-1), mask[:, 0])
        if chunk.known is not None:
            known = torch.from_numpy(chunk.known).to(device)
            self._keep(seen_opening=dark_opening(one, known), true_opening=true_opening(known))

    def _add_jitter(self, *parts: Tensor) -> None:
        """Add second differences, which reach back two frames into the chunk before."""
        generated, true, mask = map(torch.cat, zip(self.last_two, parts)) if self.last_two else parts
        self.jitter += torch.stack([acceleration(generated, mask), acceleration(true, mask)]).cpu()
        self.last_two = [generated[-2:], true[-2:], mask[-2:]]

    def _find_faces(self, generated: np.ndarray, chunk: TrueChunk) -> None:
        faces, points, descriptors = self.networks.faces, chunk.points, chunk.descriptors
        assert faces is not None and points is not None and descriptors is not None and chunk.known is not None
        if generated is not chunk.true:
            points = faces.landmarks(generated, chunk.known)
            descriptors = faces.descriptors(generated[chunk.described], points[chunk.described])
        self.points.append((points, chunk.points))  # type: ignore[arg-type]
        self.faces_found += [faces.finds_face(generated[place], chunk.known[place]) for place in chunk.looked_at]
        self._keep(identity=identity_similarity(torch.from_numpy(descriptors), torch.from_numpy(chunk.descriptors)))

    def score(self, samples: np.ndarray | None) -> ClipScore:
        """Return the scores. `samples`: (T * 640,) int16, the method's sound."""
        numbers = {name: torch.cat(chunks) for name, chunks in self.numbers.items()}
        means: dict[str, Any] = {name: values.mean() for name, values in numbers.items()}
        means["jitter_pixels"] = self.jitter[0] / self.jitter[1]
        if "seen_opening" in numbers:
            means["opening_correlation"] = correlation(numbers["seen_opening"], numbers["true_opening"])
        means |= self._attempt(FACES, lambda: self._faces(samples)) or dict.fromkeys(FACES)
        found, curve = self._attempt(SYNC, lambda: self._sync(samples)) or ({}, None)
        return ClipScore({name: _finite((means | found).get(name)) for name in ALL}, self.failed, curve)

    def _sync(self, samples: np.ndarray | None) -> tuple[dict[str, float], list[float] | None]:
        if self.lips is None:
            return {}, None
        scores = sync_scores(*self.lips.finish(samples))
        return dict(zip(SYNC, scores[:3])), scores.curve.tolist()

    def _faces(self, samples: np.ndarray | None) -> dict[str, Any]:
        if self.networks.faces is None:
            return {}
        if not self.points:
            raise UserError("no landmarks of the true video")
        if (found := sum(self.faces_found)) * 2 < (looked_at := len(self.faces_found)):
            raise UserError(f"dlib finds a face in {found} of the {looked_at} frames that were looked at")
        ours, theirs = (torch.from_numpy(np.concatenate(side)).double() for side in zip(*self.points))
        jitter = acceleration(ours[:, MOUTH]) / acceleration(theirs[:, MOUTH])
        measured = {"lmd": lmd(ours, theirs).mean(), "jitter_landmarks": jitter}
        if samples is not None:
            silent = silent_frames(torch.from_numpy(np.array(samples)), len(ours))
            measured["silent_motion"] = silent_motion(ours, silent).mean()
        return measured

    def _attempt(self, measures: tuple[str, ...], measure: Callable[[], Any]) -> Any:
        """Return what `measure` gives, or None and note the reason for every one of the measures."""
        try:
            return measure()
        except UserError as error:
            self.failed |= {name: str(error) for name in measures if name not in self.failed}
            return None


def _finite(value: Any) -> float | None:
    """Return null where nothing was measured, or what was is not finite."""
    number = float("nan") if value is None else float(value)
    return number if np.isfinite(number) else None
