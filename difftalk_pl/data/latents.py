"""The cache of latents: ROOT/latents/CODEC-MASK/NAME.npy."""

from pathlib import Path

import numpy as np

from difftalk_pl.data.clips import Clip
from difftalk_pl.data.masks import MaskName
from difftalk_pl.errors import UserError


class LatentCache:
    """The latents of one autoencoder under one mask. prepare removes those of a clip that it replaces.

    Args:
        root: the prepared dataset.
        codec: hash of the autoencoder's weights.
        mask: name of the mask policy.
    """

    def __init__(self, root: Path, codec: str, mask: MaskName) -> None:
        self.root, self.codec, self.mask = root, codec, mask
        self.folder = root / "latents" / f"{codec}-{mask}"

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
        except (OSError, ValueError, EOFError) as error:
            self.check([clip])
            raise UserError(f"{path}: cannot be read ({error}); run cache-latents again") from error
        if array.ndim != 5 or array.shape[:2] != (2, clip.frames) or array.dtype != np.float16:
            raise UserError(f"{path}: {array.dtype} {array.shape} for {clip.frames} frames; run cache-latents again")
        return array

    def check(self, clips: list[Clip]) -> None:
        """Raise UserError if clips have no latents; name the first of them, and the caches that exist."""
        if missing := [clip.name for clip in clips if not self.path(clip.name).exists()]:
            others = sorted(folder.name for folder in (self.root / "latents").glob("*-*") if folder != self.folder)
            made = f" (there are latents of other autoencoders or masks: {', '.join(others)})" if others else ""
            raise UserError(
                f"no latents for {len(missing)} clips, such as {missing[0]}: run cache-latents --data {self.root} "
                f"--mask {self.mask} with autoencoder {self.codec}{made}"
            )
