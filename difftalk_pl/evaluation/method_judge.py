"""One method's frames of one clip against the true ones, chunk by chunk; `judge.py` opens one for each method."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torchmetrics import Metric

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.frames import PSNR, SSIM, similarity_map
from difftalk_pl.evaluation.identity import IdentitySimilarity
from difftalk_pl.evaluation.landmarks import MOUTH, LandmarkDistance
from difftalk_pl.evaluation.motion import Jitter, SilentMotion, silent_frames
from difftalk_pl.evaluation.opening import OpeningCorrelation
from difftalk_pl.evaluation.perceptual import LPIPS
from difftalk_pl.evaluation.sync import LipSync
from difftalk_pl.evaluation.sync_judge import SyncJudge
from difftalk_pl.faces.detect import MeasuredFaces
from difftalk_pl.training.perceptual import PerceptualDistance

if TYPE_CHECKING:
    from difftalk_pl.evaluation.judge import ClipFacts

FRAMES = ("psnr", "ssim", "lpips")
MOUTH_FRAMES = ("mouth_psnr", "mouth_ssim", "mouth_lpips")
OF_THE_MOUTH = (*MOUTH_FRAMES, "jitter_pixels", "opening_correlation")  # need landmarks of the true video
SYNC = ("sync_offset", "sync_confidence", "sync_distance")
FACES = ("lmd", "identity", "jitter_landmarks", "silent_motion")
ALL = (*FRAMES, *MOUTH_FRAMES, *SYNC, *FACES, "jitter_pixels", "opening_correlation")
DESCRIBED = 10  # every so many frames, a descriptor of the face
LOOKED_AT = 25  # every so many frames, whether there is a face at all
ALONE: dict[str, Any] = {"sync_on_compute": False}  # a clip is judged by one process
CARRIED = 2  # frames that the second difference needs of the chunk before


class Tools(NamedTuple):
    """What measures; a part that is None measures nothing."""

    device: torch.device
    distance: PerceptualDistance | None
    sync: SyncJudge | None
    faces: MeasuredFaces | None


class TrueChunk(NamedTuple):
    """True frames and what is known of them.

    true: (n, H, W, 3) uint8; mask: (n, H, W) bool; known: (n, 68, 2), the clip's landmarks; first: number of the first
    frame; points, descriptors: what dlib finds; looked_at: places in which the face is looked for.
    """

    true: np.ndarray
    mask: np.ndarray | None
    known: np.ndarray | None
    first: int
    points: np.ndarray | None = None
    descriptors: np.ndarray | None = None
    looked_at: np.ndarray | None = None

    def every(self, frames: int) -> np.ndarray:
        """Places in the chunk of the clip's every so manyth frame."""
        return np.flatnonzero((self.first + np.arange(len(self.true))) % frames == 0)


class Closeness:
    """PSNR, SSIM and LPIPS of whole frames, or of where a mask is 1."""

    def __init__(self, device: torch.device) -> None:
        self.psnr, self.ssim = PSNR(**ALONE).to(device), SSIM(**ALONE).to(device)
        self.lpips = LPIPS(**ALONE).to(device)

    def update(
        self, frames: tuple[Tensor, Tensor], similarity: Tensor, layers: list[Tensor] | None, mask: Tensor | None
    ) -> None:
        """Two sets of frames (n, 3, H, W), their maps of SSIM and of LPIPS, and the mask (n, 1, H, W)."""
        self.psnr.update(*frames, mask)
        self.ssim.update(similarity, mask)
        if layers is not None:
            self.lpips.update(layers, mask)

    def values(self) -> list[float | None]:
        """In the order of `FRAMES`."""
        return [_known(metric) for metric in (self.psnr, self.ssim, self.lpips)]


class MethodJudge:
    """Measures that run over frames, and what the measures over time need."""

    def __init__(self, tools: Tools, facts: "ClipFacts") -> None:
        self.tools = tools
        self.failed: dict[str, str] = {}
        self.whole, self.mouth = Closeness(tools.device), Closeness(tools.device)
        self.opening = OpeningCorrelation(**ALONE).to(tools.device)
        self.pixels, self.motion = Jitter(**ALONE), Jitter(**ALONE)
        self.lmd, self.identity = LandmarkDistance(**ALONE), IdentitySimilarity(**ALONE)
        self.silent = SilentMotion(**ALONE)
        self.points: list[tuple[np.ndarray, np.ndarray]] = []
        self.faces_found: list[bool] = []
        self.carried: tuple[Tensor, Tensor, Tensor] | None = None
        sync, clip = tools.sync, (facts.landmarks, facts.frames, facts.size)
        self.lips = None if sync is None else self._attempt(SYNC, lambda: sync.open(*clip))

    def add(self, generated: np.ndarray, chunk: TrueChunk) -> None:
        """(n, H, W, 3) uint8, beside the true frames of the chunk."""
        self._compare(generated, chunk)
        if chunk.mask is not None:
            self._watch_pixels(generated, chunk.true, chunk.mask)
        if self.lips is not None:
            self.lips.add(generated)
        if chunk.points is not None:
            self._find_faces(generated, chunk)

    @torch.no_grad()
    def _compare(self, generated: np.ndarray, chunk: TrueChunk) -> None:
        """Frame by frame: the whole one and the generated region."""
        one, other = (_signed(frames).to(self.tools.device) for frames in (generated, chunk.true))
        distance = self.tools.distance
        layers = None if distance is None else distance.layers(one, other)
        similarity = similarity_map(one, other)
        self.whole.update((one, other), similarity, layers, None)
        if chunk.mask is not None:
            mask = torch.from_numpy(chunk.mask[:, None]).float().to(self.tools.device)
            self.mouth.update((one, other), similarity, layers, mask)
        if chunk.known is not None:
            self.opening.update(one, torch.from_numpy(np.array(chunk.known)).to(self.tools.device))

    def _watch_pixels(self, generated: np.ndarray, true: np.ndarray, mask: np.ndarray) -> None:
        """Second differences reach back two frames into the chunk before."""
        parts = (_grey(generated), _grey(true), torch.from_numpy(mask))
        if self.carried is not None:
            parts = tuple(torch.cat(pair) for pair in zip(self.carried, parts))  # type: ignore[assignment]
        self.pixels.update(*parts)
        self.carried = tuple(part[-CARRIED:] for part in parts)  # type: ignore[assignment]

    def _find_faces(self, generated: np.ndarray, chunk: TrueChunk) -> None:
        faces, is_true = self.tools.faces, generated is chunk.true
        assert faces is not None and chunk.points is not None and chunk.descriptors is not None
        assert chunk.known is not None and chunk.looked_at is not None
        points = chunk.points if is_true else faces.landmarks(generated, chunk.known)
        self.points.append((points, chunk.points))
        where = chunk.every(DESCRIBED)
        described = chunk.descriptors if is_true else faces.descriptors(generated[where], points[where])
        self.faces_found += [faces.finds_face(generated[place], chunk.known[place]) for place in chunk.looked_at]
        self.identity.update(torch.from_numpy(described), torch.from_numpy(chunk.descriptors))

    def scores(self, samples: np.ndarray | None) -> tuple[dict[str, float | None], dict[str, str], list[float] | None]:
        """Values, reasons of failures, and SyncNet's curve. `samples`: (T * 640,) int16, the method's sound."""
        values: dict[str, float | None] = dict.fromkeys(ALL)
        values |= dict(zip(FRAMES, self.whole.values())) | dict(zip(MOUTH_FRAMES, self.mouth.values()))
        values |= {"jitter_pixels": _known(self.pixels), "opening_correlation": _known(self.opening)}
        values |= self._attempt(FACES, lambda: self._faces(samples)) or {}
        found, curve = self._attempt(SYNC, lambda: self._sync(samples)) or ({}, None)
        return values | found, self.failed, curve

    def _sync(self, samples: np.ndarray | None) -> tuple[dict[str, float | None], list[float] | None]:
        if self.lips is None:
            return {}, None
        metric = LipSync(**ALONE)
        metric.update(*self.lips.finish(samples))
        scores = metric.compute()
        return dict(zip(SYNC, map(float, scores[:3]))), [float(value) for value in scores.curve]

    def _faces(self, samples: np.ndarray | None) -> dict[str, float | None]:
        if self.tools.faces is None:
            return {}
        if not self.points:
            raise UserError("no landmarks of the true video")
        if sum(self.faces_found) * 2 < len(self.faces_found):
            found, looked_at = sum(self.faces_found), len(self.faces_found)
            raise UserError(f"dlib finds a face in {found} of the {looked_at} frames that were looked at")
        ours, theirs = (torch.from_numpy(np.concatenate(side)).double() for side in zip(*self.points))
        self.lmd.update(ours, theirs)
        self.motion.update(ours[:, MOUTH], theirs[:, MOUTH])
        if samples is not None:
            self.silent.update(ours, silent_frames(torch.from_numpy(np.array(samples)), len(ours)))
        metrics = (self.lmd, self.identity, self.motion, self.silent)
        return {name: _known(metric) for name, metric in zip(FACES, metrics)}

    def _attempt(self, measures: tuple[str, ...], measure: Callable[[], Any]) -> Any:
        """What `measure` gives, or None and the reason for every one of the measures."""
        try:
            return measure()
        except UserError as error:
            self.failed |= {name: str(error) for name in measures if name not in self.failed}
            return None


def _signed(frames: np.ndarray) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, H, W) in [-1, 1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "n h w c -> n c h w").float() / 127.5 - 1


def _grey(frames: np.ndarray) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, H, W), the mean of the colours."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float().mean(-1)


def _known(metric: Metric) -> float | None:
    """null where nothing was measured, or what was is not finite."""
    number = float(metric.compute()) if metric.update_called else float("nan")
    return number if np.isfinite(number) else None
