"""Where cached latents lie and what made them: ROOT/latents/CODEC-MASK/NAME.npy with latents.json beside them.

NAME.sha256 has the checksums of the latents, and of the clip's files that they were made from.
"""

import json
import re
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, get_args

import numpy as np

from difftalk_pl.data.clips import SUMS, Clip, write_json
from difftalk_pl.data.files.array_file import ArrayFile, Layout
from difftalk_pl.data.files.sums import put_sums, read_sums
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError
from difftalk_pl.files import file_hash

MADE_FROM = ("video.mp4", "landmarks.npy")  # of a clip
DESCRIPTION = "latents.json"
CODEC = re.compile("[0-9a-f]{6,}")


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

    def sums(self, clip: str) -> Path:
        return self.folder / f"{clip}.sha256"

    def describe(self) -> None:
        """Write latents.json, so that the folder is known as one of ours."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / DESCRIPTION, self._description())

    def is_described(self) -> bool:
        """Whether latents.json is there and says what the folder's name says."""
        try:
            return json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8")) == self._description()
        except (OSError, ValueError):
            return False

    def _description(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items() if key != "root"}

    def made_from(self, clip: Clip) -> dict[str, str]:
        """The checksums of what latents are made from, to be taken before."""
        known = read_sums(clip.folder / SUMS)
        return {_from_here(clip, name): known.get(name) or file_hash(clip.folder / name) for name in MADE_FROM}

    def write_sums(self, clip: Clip, made_from: dict[str, str], digest: str) -> None:
        """Before the clip's latents, whose SHA-256 this is, get their name."""
        put_sums(self.sums(clip.name), {**made_from, self.path(clip.name).name: digest})

    def made_from_others(self, clip: Clip) -> list[str]:
        """Files of the clip that are not those its latents were made from, as far as either is known."""
        then, now = read_sums(self.sums(clip.name)), read_sums(clip.folder / SUMS)
        both = ((name, then.get(_from_here(clip, name)), now.get(name)) for name in MADE_FROM)
        return [name for name, old, new in both if old and new and old != new]

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


def open_cache(folder: Path) -> LatentCache | None:
    """The cache that a folder of ROOT/latents is by its name; None where it is called otherwise."""
    codec, _, mask = folder.name.rpartition("-")
    known = CODEC.fullmatch(codec) is not None and mask in get_args(MaskName)
    return LatentCache(folder.parent.parent, codec, mask) if known else None  # type: ignore[arg-type]


def _from_here(clip: Clip, name: str) -> str:
    """A clip's file from the folder of latents, so that `sha256sum --check` finds it."""
    return f"../../clips/{clip.name}/{name}"


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
