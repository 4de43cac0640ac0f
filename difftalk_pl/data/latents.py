"""The cache of latents: ROOT/latents/CODEC-MASK/NAME.npy, and NAME.json with what they were made from."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError

MADE_FROM = ("video.mp4", "landmarks.npy")  # files of a clip


@dataclass(frozen=True)
class LatentCache:
    """The latents of one autoencoder under one mask.

    Args:
        root: the prepared dataset.
        codec: hash of the autoencoder's weights.
        mask: name of the mask policy.
    """

    root: Path
    codec: str
    mask: MaskName

    @property
    def folder(self) -> Path:
        return self.root / "latents" / f"{self.codec}-{self.mask}"

    def path(self, clip: str) -> Path:
        return self.folder / f"{clip}.npy"

    def open(self, clip: Clip) -> np.memmap:
        """Map a clip's latents, (2, T, C, h, w) float16: z of every frame, then z of every masked frame.

        Raises:
            UserError: they are missing, unreadable or of another length.
        """
        path = self.path(clip.name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise UserError(f"no latents for {clip.name!r}: {self._remedy()}") from error
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run cache-latents again") from error
        if array.ndim != 5 or array.shape[:2] != (2, clip.frames) or array.dtype != np.float16:
            raise UserError(f"{path}: {array.dtype} {array.shape} for {clip.frames} frames; run cache-latents again")
        return array

    def check(self, clips: list[Clip]) -> None:
        """Raise UserError if clips have no latents; name the first of them, and the caches that exist."""
        if missing := [clip.name for clip in clips if not self.path(clip.name).exists()]:
            raise UserError(f"no latents for {len(missing)} clips, such as {missing[0]}: {self._remedy()}")

    def is_complete(self, clip: Clip) -> bool:
        """Return whether a clip's latents are readable and were made from its present files."""
        try:
            self.open(clip)
            return json.loads(self.record(clip.name).read_text(encoding="utf-8")) == self.made_from(clip)
        except (UserError, OSError, ValueError):
            return False

    def record(self, clip: str) -> Path:
        return self.folder / f"{clip}.json"

    def made_from(self, clip: Clip) -> dict[str, str]:
        """Return the SHA-256 of the clip's files that latents are made from, as clip.json has them."""
        return {name: clip.info()["sha256"][name] for name in MADE_FROM}

    def _remedy(self) -> str:
        others = sorted(folder.name for folder in (self.root / "latents").glob("*-*") if folder != self.folder)
        made = f" (there are latents of other autoencoders or masks: {', '.join(others)})" if others else ""
        return f"run cache-latents --data {self.root} --mask {self.mask} with autoencoder {self.codec}{made}"


def read_latents(array: np.memmap, frame: int, reference: int) -> list[np.ndarray]:
    """Read z and z of the masked frame, and z of the reference, (C, h, w) float32 each.

    By position and not through the mapping: at random places a mapping reads ahead, up to 8 MiB for 24 KiB on some
    machines, and what it has read counts as the process's memory.
    """
    rows = np.empty((3, *array.shape[2:]), array.dtype)
    with open(array.filename, "rb", buffering=0) as file:  # type: ignore[arg-type]
        for row, place in zip(rows, (frame, array.shape[1] + frame, reference), strict=True):
            if os.preadv(file.fileno(), [row.data], array.offset + place * row.nbytes) != row.nbytes:
                raise UserError(f"{file.name}: ends before frame {frame}; run cache-latents again")
    return list(rows.astype(np.float32))
