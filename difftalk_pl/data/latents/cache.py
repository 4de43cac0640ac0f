"""Where cached latents lie and what made them: ROOT/latents/CODEC-MASK/NAME.npy with latents.json beside them."""

import json
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.files.array_file import ArrayFile, Layout
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
        """Memory-map a clip's latents. Raises UserError where there are none or they do not fit."""
        path = self.path(clip.name)
        if not path.exists():
            raise UserError(f"no latents for {clip.name!r}: {self._remedy()}")
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove it and run cache-latents") from error
        if array.ndim != 5 or array.shape[:2] != (2, clip.frames):
            raise UserError(f"{path}: shape {array.shape} for {clip.frames} frames; remove it and run cache-latents")
        if array.dtype != np.float16:
            raise UserError(f"{path}: holds {array.dtype}, expected float16; remove it and run cache-latents")
        return array

    def reader(self, clip: Clip) -> "LatentFile":
        """A clip's latents for reading at random."""
        return LatentFile(Layout.of(self.open(clip)))

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


class LatentFile(ArrayFile):
    """One clip's latents: the rows are z of every frame, then z of every masked frame."""

    def __init__(self, layout: Layout, file: FileIO | None = None, start: int = 0) -> None:
        kinds, self.frames, *row = layout.shape
        super().__init__(layout._replace(shape=(kinds * self.frames, *row)), file, start)

    def read_latent(self, kind: int, frame: int) -> np.ndarray:
        """One frame's latents, (C, h, w) float32; kind 0 is z, 1 is z of the masked frame."""
        row = kind * self.frames + frame
        return self.read(row, row + 1)[0].astype(np.float32)


class Latents(Protocol):
    """What holds latents: the cache on disk, or its copy in memory."""

    def reader(self, clip: Clip) -> LatentFile: ...
