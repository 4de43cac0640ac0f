"""The frozen autoencoder between the stages, and the command that caches what it makes of a dataset."""

import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips
from difftalk_pl.data.dataset import CACHING, Windows
from difftalk_pl.data.files.claims import Claims, TakenOverError
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.errors import UserError, reason_of
from difftalk_pl.models.pretrained import file_hash
from difftalk_pl.progress import progress_bar
from difftalk_pl.training.weights import Weights, read_weights

log = logging.getLogger(__name__)
POLL = 5.0  # s between two looks at what others work on


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

    Clips that are there are skipped, so that a killed run goes on where it was. Run it several times at once, on one
    machine or many, and each clip is encoded by one of them. A clip that cannot be read does not hold up the others.

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
    encoder = _Encoder(cache, codec, where, batch_size, workers)
    claims, failures = Claims(cache.folder / "claims"), dict[str, str]()
    with progress_bar() as bar:
        task = bar.add_task("latents", total=sum(clip.frames for clip in missing))
        while missing:
            later = []
            for clip in missing:
                claim = claims.take(clip.name)
                if claim is None:
                    later.append(clip)
                    continue
                with claim:
                    if claim.after_dead:
                        encoder.remove_half_written(clip)
                    if _complete(cache, clip):  # by another process meanwhile
                        bar.advance(task, clip.frames)
                        continue
                    try:
                        failures |= encoder.try_clip(clip, claim.confirm, lambda n: bar.advance(task, n))
                    except TakenOverError:
                        later.append(clip)
            missing = later
            if missing:
                bar.update(task, description=f"latents, {len(missing)} clips in the hands of others")
                time.sleep(POLL)
    if failures:
        some = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items())[:3])
        raise UserError(f"{data}: {len(failures)} of {len(clips)} clips have no latents: {some}")


def _complete(cache: LatentCache, clip: Clip) -> bool:
    """Damaged latents, and those of a clip that was prepared anew, count as none: they are made again."""
    try:
        if not cache.path(clip.name).exists():
            return False
        cache.open(clip)
        if others := cache.made_from_others(clip):
            raise UserError(f"{cache.path(clip.name)}: made from another {' and '.join(others)}")
        return True
    except UserError as error:
        log.warning("made again: %s", error)
        return False


@dataclass(frozen=True)
class _Encoder:
    """What turns the frames of a clip into a file of latents."""

    cache: LatentCache
    codec: LatentCodec
    device: torch.device
    batch_size: int
    workers: int

    def remove_half_written(self, clip: Clip) -> None:
        """What dead processes left of a clip; for whoever holds its claim."""
        ours = re.compile(rf"\.{re.escape(clip.name)}\.[0-9a-f]+\.tmp")
        for path in [path for path in self.cache.folder.iterdir() if ours.fullmatch(path.name)]:
            path.unlink(missing_ok=True)

    def try_clip(self, clip: Clip, ready: Callable[[], None], done: Callable[[int], None]) -> dict[str, str]:
        """By the clip's name, why it could not be done; empty where it could.

        Args:
            ready: called before the latents get their name; what it raises stops that.
        """
        try:
            self._write(clip, ready, done)
        except (UserError, OSError, RuntimeError) as error:  # RuntimeError: what torch makes of a loader's exception
            ready()  # whoever took over has removed what was half written here
            log.warning("%s: no latents: %s", clip.name, reason_of(error))
            return {clip.name: reason_of(error)}
        return {}

    def _write(self, clip: Clip, ready: Callable[[], None], done: Callable[[int], None]) -> None:
        """Write a clip's latents aside, then rename: whole or not at all."""
        made_from = self.cache.made_from(clip)
        windows = Windows([clip], CACHING, mask=MaskPolicy(self.cache.mask))
        aside = self.cache.folder / f".{clip.name}.{secrets.token_hex(8)}.tmp"
        array, start = None, 0
        try:
            for batch in DataLoader(windows, self.batch_size, num_workers=self.workers):
                pictures = (batch[key].to(self.device) for key in ("image", "masked"))
                both = np.stack([self.codec.encode(picture).half().cpu().numpy() for picture in pictures])
                if array is None:
                    array = open_memmap(aside, mode="w+", dtype=np.float16, shape=(2, clip.frames, *both.shape[2:]))
                array[:, start : start + both.shape[1]] = both
                start += both.shape[1]
                done(both.shape[1])
            assert array is not None
            array.flush()
            digest = file_hash(aside)
            ready()
            if self.cache.made_from(clip) != made_from:
                raise UserError(f"{clip.folder}: was prepared anew meanwhile; run cache-latents again")
            self.cache.path(clip.name).unlink(missing_ok=True)  # old latents must not meet new sums
            self.cache.write_sums(clip, made_from, digest)
            aside.rename(self.cache.path(clip.name))
        finally:
            aside.unlink(missing_ok=True)
