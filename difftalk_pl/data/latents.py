"""The cache of latents: ROOT/latents/CODEC-MASK/NAME.npy, (2, T, C, h, w) float16, and what it was made from."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError
from difftalk_pl.files import file_hash

MADE_FROM = ("video.mp4", "landmarks.npy")  # files of a clip


@dataclass(frozen=True)
class LatentCache:
    """The latents of one autoencoder under one mask: z of every frame, then z of every masked frame.

    NAME.json beside NAME.npy holds the SHA-256 of the clip's files from which the latents were made.

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
        """Memory-map a clip's latents. Raises UserError where they are missing, unreadable or of another length."""
        path = self.path(clip.name)
        if not path.exists():
            raise UserError(f"no latents for {clip.name!r}: {self._remedy()}")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run cache-latents again") from error
        if array.ndim != 5 or array.shape[:2] != (2, clip.frames) or array.dtype != np.float16:
            raise UserError(
                f"{path}: {array.dtype} {array.shape}, expected float16 latents of {clip.frames} frames; "
                "run cache-latents again"
            )
        return array

    def check(self, clips: list[Clip]) -> None:
        """Raise UserError if clips have no latents; name some of them, and the caches that exist."""
        if missing := [clip.name for clip in clips if not self.path(clip.name).exists()]:
            some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            raise UserError(f"{self.folder}: no latents for {len(missing)} clips ({some}); {self._remedy()}")

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
        """Return the SHA-256 of the clip's files that latents are made from."""
        return {name: file_hash(clip.folder / name) for name in MADE_FROM}

    def _remedy(self) -> str:
        others = sorted(folder.name for folder in (self.root / "latents").glob("*-*") if folder != self.folder)
        made = f" (there are latents of another autoencoder or mask: {', '.join(others)})" if others else ""
        return f"run cache-latents --data {self.root} --mask {self.mask} with autoencoder {self.codec}{made}"
