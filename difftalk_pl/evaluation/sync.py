"""How well lips and speech go together, by the embeddings of SyncNet: offset, confidence and distance.

The mean of the distance over clips is known as LSE-D, that of the confidence as LSE-C. They depend on how the face was
cropped, and are comparable only between methods that are scored on the same crops.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, pairwise_distance

from difftalk_pl.data.sync import SyncCrop, crop_boxes, lip_frames, sync_mfcc, sync_windows
from difftalk_pl.errors import UserError
from difftalk_pl.files import file_hash
from difftalk_pl.models.syncnet import LIP_FRAMES, SyncNet, audio_stream
from difftalk_pl.training.pretrained import SYNCNET_SHA256, MissingWeights
from difftalk_pl.training.unpickling import read_file
from difftalk_pl.training.weights import ENTRY, listed, load_into, read_weights, weights_hash

LARGEST_SHIFT = 15  # frames, in both directions; as published
EPSILON = 1e-6  # added to every difference, as published
COUNTER = "num_batches_tracked"  # of batch normalisation; published without
CROPS: dict[SyncCrop, str] = {
    "face_crop": "as the published pipeline, boxes from 68 landmarks in place of S3FD",
    "whole_frame": "the frame at SyncNet's side",
}


class SyncScores(NamedTuple):
    """Scores of one clip.

    offset: frames by which the speech has to be moved to fit best; negative where it comes too late.
    confidence: how much nearer the best shift is than the median one.
    distance: mean distance at the best shift.
    curve: mean distance at every shift, (31,): entry k is lips of frame i against speech of frame i + k - 15.
    """

    offset: int
    confidence: float
    distance: float
    curve: Tensor


def shifted_distances(lips: Tensor, audio: Tensor) -> Tensor:
    """Return d[i][k] = ‖lips_i - audio_{i + k - 15} + 1e-6‖, (N, 31), of embeddings (N, C), as published.

    Beyond its ends the speech counts as zeros: of the scores of a clip of a second or two they are a good part.
    """
    padded = pad(audio, (0, 0, LARGEST_SHIFT, LARGEST_SHIFT))
    shifts = range(2 * LARGEST_SHIFT + 1)
    columns = [pairwise_distance(lips, padded[k : k + len(lips)], eps=EPSILON) for k in shifts]
    return torch.stack(columns, dim=1)


def sync_scores(lips: Tensor, audio: Tensor) -> SyncScores:
    """Return the scores of a clip from the embeddings of its windows, (N, C) each."""
    curve = shifted_distances(lips, audio).mean(dim=0)
    best = int(curve.argmin())
    distance = float(curve[best])
    return SyncScores(LARGEST_SHIFT - best, float(curve.median()) - distance, distance, curve)


class SyncJudge:
    """A frozen SyncNet with its file. It is no nn.Module, so that checkpoints, EMA, optimizers and DDP never see it.

    Args:
        path: the published syncnet_v2.model, or a checkpoint of SyncNetTraining, or a folder that export made of one.
        crop: what it sees of a frame.

    Raises:
        MissingWeights, UserError: no file, not one of a SyncNet, or one that was trained on the other crop.
    """

    def __init__(self, path: Path, crop: SyncCrop, device: str | torch.device = "cpu") -> None:
        self.path, self.crop, self.device = Path(path), crop, torch.device(device)
        if not self.path.exists():
            raise MissingWeights(
                f"{self.path}: no weights of SyncNet. `python -m difftalk_pl fetch-weights syncnet` downloads the "
                "published ones and says where they lie; a checkpoint of SyncNetTraining will do, too"
            )
        content = None if self.path.is_dir() else read_file(self.path)
        if content is None or (isinstance(content, Mapping) and ENTRY in content):
            weights = read_weights(self.path)
            self.network = weights.syncnet()
            if (trained := weights.config["crop"]) != crop:
                raise UserError(f"{path}: trained on {trained}, not {crop}: set sync_crop to {trained}")
            people, label = weights.config["trained_on"], weights.config["data_label"]
            name = f"trained here on {len(people)} people: {listed(people)}" + (f" ({label})" if label else "")
            self.origin = {"network": name}
        else:
            self.network, digest = SyncNet(), file_hash(self.path)
            counters = {name: value for name, value in self.network.state_dict().items() if name.endswith(COUNTER)}
            load_into(self.network, counters | read_file(self.path), self.path)
            published = digest == SYNCNET_SHA256
            name = "published syncnet_v2" if published else "SyncNet of published size, another file"
            self.origin = {"network": name, "sha256": digest}
        self.network.eval().requires_grad_(False).to(self.device)

    def __deepcopy__(self, memo: dict) -> "SyncJudge":
        return self

    def describe(self) -> dict[str, Any]:
        """Return what a number made with it has to be published with."""
        return {
            **self.origin,
            "file": self.path.name,
            "weights": weights_hash(self.network.state_dict()),
            "crop": f"{self.crop}: {CROPS[self.crop]}",
            "side": self.network.config.side,
            "largest_shift": LARGEST_SHIFT,
            "min_windows": 1,
        }


class SyncStream:
    """One clip on its way through the lip network; of the pixels it keeps the last four frames alone.

    Args:
        landmarks: (T, 68, 2) of all frames, fractions of the side; None is for whole_frame alone.
        size: side of the frames in pixels.
    """

    def __init__(self, judge: SyncJudge, landmarks: np.ndarray | None, size: int) -> None:
        self.network, self.device, self.seen = judge.network, judge.device, 0
        if landmarks is None and judge.crop == "face_crop":
            raise UserError("no landmarks, and face_crop follows the face by them; whole_frame needs none")
        self.boxes = None if judge.crop == "whole_frame" else crop_boxes(landmarks, size)  # type: ignore[arg-type]
        self._kept = np.empty((0, 3, self.network.config.side, self.network.config.side), np.uint8)
        self._lips: list[Tensor] = []

    def add(self, frames: np.ndarray) -> None:
        """Embed the next frames, (n, H, W, 3) uint8 RGB; any number of them, in 32 bits whatever surrounds it."""
        boxes = None if self.boxes is None else self.boxes[self.seen : self.seen + len(frames)]
        lips = np.concatenate([self._kept, lip_frames(frames, boxes, self.network.config.side)])
        self.seen += len(frames)
        if len(lips) >= LIP_FRAMES:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                pixels = torch.from_numpy(lips).to(self.device).float()
                self._lips.append(self.network.embed_frames(pixels).cpu())
        self._kept = lips[1 - LIP_FRAMES :]

    def finish(self, samples: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Return the embeddings of lips and speech that the published scores take, (N, C) float32 each, on the CPU.

        Args:
            samples: (T * 640,) int16 at 16 kHz, or None where there is no sound.

        Raises:
            UserError: no sound, or too short a clip.
        """
        if samples is None:
            raise UserError("no sound, so that there is nothing to hold the lips against")
        windows = sync_windows(self.seen, len(samples))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            speech = audio_stream(self.network, torch.from_numpy(sync_mfcc(samples, windows).copy()))
        return torch.cat(self._lips)[:windows], speech
