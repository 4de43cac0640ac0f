"""SyncNet with its file, which measures clips chunk by chunk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftalk_pl.data.sync import SyncCrop, crop_boxes, lip_frames, sync_mfcc, sync_windows
from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.sync import LARGEST_SHIFT
from difftalk_pl.models.pretrained import SYNCNET, MissingWeights, file_hash, read_tensors
from difftalk_pl.models.syncnet import LIP_FRAMES, SyncNet, audio_stream
from difftalk_pl.training.unpickling import read_file
from difftalk_pl.training.weights import ENTRY, listed, load_into, read_weights, weights_hash

COUNTER = "num_batches_tracked"  # of batch normalisation; published without
WINDOWS = 16  # embedded at a time
CROPS: dict[SyncCrop, str] = {
    "face_crop": "as the published pipeline, boxes from 68 landmarks in place of S3FD",
    "whole_frame": "the frame at SyncNet's side",
}


class SyncJudge:
    """A frozen SyncNet with its file. It is no nn.Module, so that checkpoints, EMA, optimizers and DDP never see it.

    Args:
        path: the published syncnet_v2.model, or a checkpoint of SyncNetTraining, or a folder that export made of one.
        crop: what it sees of a frame.

    Raises:
        MissingWeights, UserError: no file, not one of a SyncNet, or one that was trained on the other crop.
    """

    def __init__(self, path: Path, crop: SyncCrop) -> None:
        self.path, self.crop = Path(path), crop
        if not self.path.exists():
            raise MissingWeights(
                f"{self.path}: no weights of SyncNet. `python -m difftalk_pl fetch-weights syncnet` downloads the "
                "published ones and says where they lie; a checkpoint of SyncNetTraining will do, too"
            )
        content = None if self.path.is_dir() else read_file(self.path)
        ours = content is None or (isinstance(content, Mapping) and ENTRY in content)
        self.network, self.origin = self._open_ours() if ours else self._open_published()
        self.network.freeze()

    def __deepcopy__(self, memo: dict) -> "SyncJudge":
        return self

    def to(self, device: torch.device) -> "SyncJudge":
        self.network.to(device)
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

    def open(self, landmarks: np.ndarray | None, frames: int, size: int) -> "SyncStream":
        """Begin a clip.

        Args:
            landmarks: (T, 68, 2), fractions of the side; needed for face_crop.
            frames: T, how many will come at most.
            size: side of the frames in pixels.
        """
        if self.crop == "whole_frame":
            return SyncStream(self.network, None)
        if landmarks is None:
            raise UserError("no landmarks, and face_crop follows the face by them; whole_frame needs none")
        return SyncStream(self.network, crop_boxes(landmarks[:frames], size))

    def _open_published(self) -> tuple[SyncNet, dict[str, Any]]:
        network, state, digest = SyncNet(), read_tensors(self.path), file_hash(self.path)
        counters = {name: value for name, value in network.state_dict().items() if name.endswith(COUNTER)}
        load_into(network, counters | state, self.path)
        published = digest == SYNCNET.sha256
        name = "published syncnet_v2" if published else "SyncNet of published size, another file"
        return network, {"network": name, "sha256": digest}

    def _open_ours(self) -> tuple[SyncNet, dict[str, Any]]:
        weights = read_weights(self.path)
        network = weights.syncnet()
        if (trained := weights.config["crop"]) != self.crop:
            raise UserError(f"{self.path}: trained on {trained}, not {self.crop}: set sync_crop to {trained}")
        people, label = weights.config["trained_on"], weights.config["data_label"]
        name = f"trained here on {len(people)} people: {listed(people)}" + (f" ({label})" if label else "")
        return network, {"network": name}


class SyncStream:
    """One clip on its way through the lip network; of the pixels it keeps the last four frames alone.

    Args:
        network: frozen.
        boxes: (T, 4), where the face is cut, or None for whole frames.
    """

    def __init__(self, network: SyncNet, boxes: np.ndarray | None) -> None:
        self.network, self.boxes, self.seen = network, boxes, 0
        self._kept = np.empty((0, 3, network.config.side, network.config.side), np.uint8)
        self._lips: list[Tensor] = []

    def add(self, frames: np.ndarray) -> None:
        """Embed the next frames, (n, H, W, 3) uint8 RGB; any number of them."""
        for start in range(0, len(frames), WINDOWS):
            part = frames[start : start + WINDOWS]
            boxes = None if self.boxes is None else self.boxes[self.seen : self.seen + len(part)]
            lips = np.concatenate([self._kept, lip_frames(part, boxes, self.network.config.side)])
            self.seen += len(part)
            if len(lips) >= LIP_FRAMES:
                device = next(self.network.parameters()).device
                with torch.no_grad(), _in_32_bits(device):
                    self._lips.append(self.network.embed_frames(torch.from_numpy(lips).to(device).float()).cpu())
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
        with _in_32_bits(next(self.network.parameters()).device):
            speech = audio_stream(self.network, torch.from_numpy(sync_mfcc(samples, windows).copy()))
        return torch.cat(self._lips)[:windows], speech


def _in_32_bits(device: torch.device) -> torch.autocast:
    """Scores must not depend on the precision of the model that is measured."""
    return torch.autocast(device.type, enabled=False)
