"""Where cached latents lie and what made them: ROOT/latents/CODEC-MASK/NAME.npy with latents.json beside them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError


@dataclass(frozen=True)
class LatentCache:
    """The latents of one codec under one mask.

    NAME.npy is (2, T, C, h, w) float16: z of every frame, then z of every masked frame, both before quantisation.
    """

    root: Path
    codec: str  # hash of the autoencoder's weights
    mask: MaskName

    @property
    def folder(self) -> Path:
        return self.root / "latents" / f"{self.codec}-{self.mask}"

    def path(self, clip: str) -> Path:
        return self.folder / f"{clip}.npy"

    def describe(self) -> None:
        """Write latents.json, so that the folder can be told from others without its name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {key: str(value) for key, value in asdict(self).items() if key != "root"}
        (self.folder / "latents.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def open(self, clip: Clip) -> np.memmap:
        """Memory-map a clip's latents for `read_latent`. Raises UserError where there are none or they do not fit."""
        path = self.path(clip.name)
        if not path.exists():
            raise UserError(f"no latents for {clip.name!r}: {self._remedy()}")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it and run cache-latents") from error
        if array.ndim != 5 or array.shape[:2] != (2, clip.frames):
            raise UserError(f"{path}: shape {array.shape} for {clip.frames} frames; remove it and run cache-latents")
        return array

    def check(self, clips: list[Clip]) -> None:
        """Name the clips without latents before training starts, and the caches that other codecs or masks made."""
        missing = [clip.name for clip in clips if not self.path(clip.name).exists()]
        if missing:
            some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            raise UserError(f"{self.folder}: no latents for {len(missing)} clips ({some}); {self._remedy()}")

    def _remedy(self) -> str:
        others = sorted(folder.name for folder in (self.root / "latents").glob("*-*") if folder != self.folder)
        made = f" (there are latents of another autoencoder or mask: {', '.join(others)})" if others else ""
        return f"run cache-latents --data {self.root} --mask {self.mask} with autoencoder {self.codec}{made}"


def read_latent(latents: np.memmap, kind: int, frame: int) -> np.ndarray:
    """One frame's latents, (C, h, w) float32; kind 0 is z, 1 is z of the masked frame.

    Read by its place in the file. Through the mapping, every page fault at a random place reads ahead, and what it
    reads grows with the file: 8 MiB for these 24 KiB on some machines.
    """
    assert latents.filename is not None
    count = int(np.prod(latents.shape[2:]))
    offset = latents.offset + (kind * latents.shape[1] + frame) * count * latents.itemsize
    flat = np.fromfile(latents.filename, latents.dtype, count, offset=offset)
    return flat.reshape(latents.shape[2:]).astype(np.float32)
