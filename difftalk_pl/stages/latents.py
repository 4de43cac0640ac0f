"""The frozen autoencoder between the stages, and the command that caches what it makes of a dataset."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.latent_cache import LatentCache
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.windows import CACHING, Windows
from difftalk_pl.errors import UserError
from difftalk_pl.progress import progress_bar
from difftalk_pl.stages.weights import Weights, read_weights

log = logging.getLogger(__name__)


class LatentCodec:
    """E_I and D_I of the paper: images to latents before quantisation and back, never trained.

    It is no nn.Module on purpose, so that neither EMA copies it, nor optimizers, DDP or `state_dict` see it.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.network = weights.autoencoder()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hash = weights.hash
        self.factor = self.network.config.factor

    @classmethod
    def load(cls, path: Path) -> "LatentCodec":
        """From a checkpoint or a folder of either stage."""
        weights = read_weights(path)
        return cls(weights.codec or weights)

    def __deepcopy__(self, memo: dict) -> "LatentCodec":
        return self

    def to(self, device: torch.device) -> "LatentCodec":
        self.network.to(device)
        return self

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> z (B, 3, h, w), in 32 bits within autocast, too: as in the cache."""
        with torch.autocast(image.device.type, enabled=False):
            return self.network.encode(image.float())

    @torch.no_grad()
    def indices(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, h, w), numbers in the codebook."""
        return self.network.quantise(self.encode(image)).indices

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """z (B, 3, h, w) -> (B, 3, H, W) in [-1, 1], through the codebook."""
        with torch.autocast(z.device.type, enabled=False):
            return self.network.decode(z.float()).clamp(-1, 1)


def choose_device(name: str) -> torch.device:
    """`auto` is the accelerator where there is one. Raises UserError for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: not usable here ({str(error).splitlines()[0]})") from error


def cache_latents(
    data: Path,
    autoencoder: Path,
    mask: MaskName = "mouth_safe",
    batch_size: int = 32,
    workers: int = 2,
    device: str = "auto",
) -> None:
    """Encode every frame of a prepared dataset, and every masked frame, once and for all of stage 2.

    Clips that are there are skipped, so that a killed run goes on where it was.

    Args:
        data: the prepared dataset; the latents go to its folder latents/.
        autoencoder: checkpoint or folder of stage 1.
        mask: the policy that stage 2 will use.
        batch_size: frames a step.
        workers: processes that decode frames.
        device: cpu, cuda, or auto.
    """
    codec = LatentCodec.load(autoencoder)
    where = choose_device(device)
    codec.to(where)
    cache = LatentCache(data, codec.hash, mask)
    cache.describe()
    clips = open_clips(data)
    missing = [clip for clip in clips if not _complete(cache, clip)]
    log.info("%d clips, %d of them cached already in %s", len(clips), len(clips) - len(missing), cache.folder)
    with progress_bar() as bar:
        task = bar.add_task("latents", total=sum(clip.frames for clip in missing))
        for clip in missing:
            _cache_clip(cache, clip, codec, where, batch_size, workers, lambda n: bar.advance(task, n))


def _complete(cache: LatentCache, clip: Clip) -> bool:
    return cache.path(clip.name).exists() and cache.open(clip) is not None


def _cache_clip(
    cache: LatentCache,
    clip: Clip,
    codec: LatentCodec,
    device: torch.device,
    batch_size: int,
    workers: int,
    done: Callable[[int], None],
) -> None:
    """Write a clip's latents aside, then rename: whole or not at all."""
    loader = DataLoader(Windows([clip], CACHING, mask=MaskPolicy(cache.mask)), batch_size, num_workers=workers)
    aside = cache.folder / f".{clip.name}.tmp"
    array, start = None, 0
    for batch in loader:
        both = [codec.encode(batch[key].to(device)).half().cpu().numpy() for key in ("image", "masked")]
        if array is None:
            shape = (2, clip.frames, *both[0].shape[1:])
            array = open_memmap(aside, mode="w+", dtype=np.float16, shape=shape)
        array[:, start : start + len(both[0])] = np.stack(both)
        start += len(both[0])
        done(len(both[0]))
    assert array is not None
    array.flush()
    aside.rename(cache.path(clip.name))
