"""HDTFDataModule: which clips train, validate and test, and the loaders of their windows."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from difftalk_pl.data.audio import AROUND
from difftalk_pl.data.clips import Clip, open_clips, read_dataset
from difftalk_pl.data.features import FeatureModel, check_features, known_kinds, read_record
from difftalk_pl.data.latent_cache import LatentCache
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.sampler import ShardSampler, WindowSampler
from difftalk_pl.data.windows import (
    EVALUATION,
    FRAME,
    GENERATION,
    TRAINING,
    TRAINING_ON_IMAGES,
    Part,
    ReferenceRule,
    Windows,
)
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class Split:
    """Who trains, validates and tests. No identity is on two sides.

    Args:
        val: a fraction of the identities, or a list of clips or identities, or a file that lists them, one a line.
        test: the same.
        train: a list or a file; by default all that is left.
        seed: of the draw by fractions.
    """

    val: float | list[str] | Path = 0.1
    test: float | list[str] | Path = 0.1
    train: list[str] | Path | None = None
    seed: int = 0

    def apply(self, clips: Sequence[Clip]) -> dict[str, list[Clip]]:
        """Divide the clips. Raises UserError where names are unknown or a person is on two sides."""
        parts = {side: self._named(side, clips) for side in ("train", "val", "test")}
        taken = {clip.identity for chosen in parts.values() for clip in chosen or ()}
        free = sorted({clip.identity for clip in clips} - taken)
        free.sort(key=self._rank)
        for side in ("test", "val"):
            fraction = getattr(self, side)
            if parts[side] is None:
                number = min(
                    max(round(fraction * len({c.identity for c in clips})), 1 if fraction > 0 else 0), len(free)
                )
                chosen, free = free[:number], free[number:]
                parts[side] = [clip for clip in clips if clip.identity in chosen]
        if parts["train"] is None:
            parts["train"] = [clip for clip in clips if clip.identity in free]
        sides = {side: list(chosen or ()) for side, chosen in parts.items()}
        _refuse_shared_identities(sides)
        return sides

    def _rank(self, identity: str) -> str:
        """A person's place in the draw, whoever else there is: new clips hardly move those that were there."""
        return hashlib.sha256(f"{self.seed}/{identity}".encode()).hexdigest()

    def _named(self, side: str, clips: Sequence[Clip]) -> list[Clip] | None:
        """The clips that a list names; None where the side is a fraction or what is left."""
        wanted = getattr(self, side)
        if wanted is None or isinstance(wanted, (int, float)):
            return None
        if isinstance(wanted, (str, Path)):
            wanted = _lines(side, Path(wanted))
        unknown = set(wanted) - {clip.name for clip in clips} - {clip.identity for clip in clips}
        if unknown:
            raise UserError(f"split {side}: not in the dataset: {', '.join(sorted(unknown))}; see its clips.csv")
        return [clip for clip in clips if clip.name in wanted or clip.identity in wanted]


def _lines(side: str, path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(
            f"split {side}: {path}: {error.strerror}; expected a fraction, a list of names or a file of them"
        ) from error


def _refuse_shared_identities(sides: dict[str, list[Clip]]) -> None:
    seen: dict[str, str] = {}
    for side, clips in sides.items():
        for identity in sorted({clip.identity for clip in clips}):
            if identity in seen:
                raise UserError(f"split: {identity!r} is in {seen[identity]} and in {side}; move it to one side")
            seen[identity] = side


@dataclass
class Loading:
    """How batches are made.

    Args:
        batch_size: windows a step and process.
        eval_batch_size: windows a step in validation and test.
        workers: loader processes of each process.
    """

    batch_size: int = 16
    eval_batch_size: int = 16
    workers: int = 2


class HDTFDataModule(L.LightningDataModule):
    """Windows of a prepared dataset: HDTF's, or anyone's.

    Args:
        root: a folder that prepare or synthesize wrote.
        contents: frames for the autoencoder, latents for diffusion, or images for diffusion without a cache.
        features: the kind of audio features: mfcc, deepspeech, wav2vec2 or hubert.
        mask: what is hidden; the model must be trained and used with one policy.
        min_reference_gap: frames between a target and its reference.
        val_frames: only the first so many targets of every validation clip.
        test_frames: the same for test.
        smoothing: frames before and after the target whose audio windows the model sees; released: 4 and 3.
        seed: of the order and of the references.
        split: who trains, validates and tests.
        loading: batch sizes and workers.
    """

    def __init__(
        self,
        root: Path,
        contents: Literal["frames", "latents", "images"] = "latents",
        features: str = "mfcc",
        mask: MaskName = "mouth_safe",
        min_reference_gap: int = 60,
        val_frames: int | None = None,
        test_frames: int | None = None,
        smoothing: tuple[int, int] = AROUND,
        seed: int = 0,
        split: Split = Split(),
        loading: Loading = Loading(),
    ) -> None:
        super().__init__()
        self.root, self.contents, self.features = Path(root), contents, features
        self.mask = MaskPolicy(mask)
        self.rule = ReferenceRule(min_reference_gap)
        self.frames_per_clip = {"train": None, "val": val_frames, "test": test_frames}
        self.smoothing, self.seed = smoothing, seed
        self.split = split
        self.loading = loading
        if features not in known_kinds():
            raise UserError(f"features {features!r}: expected one of {', '.join(known_kinds())}")
        self.windows: dict[str, Windows] = {}

    @property
    def frame_size(self) -> int:
        """The side of the frames in pixels."""
        return read_dataset(self.root).size

    @property
    def audio_channels(self) -> int:
        """Numbers a step of the features, as the first clip's file has them; of those that are open, if any are."""
        clip, *_ = next((windows.clips for windows in self.windows.values()), None) or open_clips(self.root)
        return clip.features(self.features).shape[1]

    @property
    def feature_model(self) -> FeatureModel | None:
        """What made the features; None for kinds that nothing learned, or where nobody has recorded it."""
        return read_record(self.root).get(self.features)

    def setup(self, stage: str) -> None:
        """Divide the clips, open the Datasets and see that they have their features; reads clips.csv, no frame."""
        clips = open_clips(self.root)
        sides = self.split.apply(clips)
        used = {clip.name for side in sides.values() for clip in side}
        if unused := [clip.name for clip in clips if clip.name not in used]:
            log.info("on no side: %s", ", ".join(unused))
        log.info("clips: %s", ", ".join(f"{side} {len(clips)}" for side, clips in sides.items()))
        if stage == "fit":
            self._open("train", sides["train"], self._training_parts())
        if stage in ("fit", "validate") and sides["val"]:
            self._open("val", sides["val"], self._training_parts())
        if stage == "predict" and self.contents == "frames":
            raise UserError("predict needs a diffusion model (stage 2); test shows what an autoencoder reconstructs")
        if stage in ("test", "predict"):
            parts = EVALUATION if stage == "test" else GENERATION
            self._open("test", sides["test"], FRAME if self.contents == "frames" else parts)
        heard = [clip for windows in self.windows.values() if windows.features for clip in windows.clips]
        check_features(self.root, heard, self.features)

    def _training_parts(self) -> Sequence[Part]:
        return {"frames": FRAME, "latents": TRAINING, "images": TRAINING_ON_IMAGES}[self.contents]

    def _open(self, side: str, clips: list[Clip], parts: Sequence[Part]) -> None:
        if not clips:
            raise UserError(f"{self.root}: no clip on the {side} side; change data.split")
        latents = self._latents(clips) if "latents" in parts else None
        self.windows[side] = Windows(
            clips,
            parts,
            mask=self.mask,
            features=self.features,
            latents=latents,
            reference=self.rule,
            seed=self.seed,
            fixed=side != "train",
            frames_per_clip=self.frames_per_clip[side],
            smoothing=self.smoothing,
        )

    def _latents(self, clips: list[Clip]) -> LatentCache:
        codec = getattr(getattr(self.trainer, "lightning_module", None), "codec", None)
        if codec is None:
            raise UserError("data.contents latents: the model has no autoencoder to tell which latents are meant")
        cache = LatentCache(self.root, codec.hash, self.mask.name)
        cache.check(clips)
        return cache

    def train_dataloader(self) -> DataLoader:
        windows = self.windows["train"]
        sampler = WindowSampler(len(windows), seed=self.seed, **self._ranks())
        if self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
        loader = self._loader(
            windows, sampler, self.loading.batch_size, drop_last=len(sampler) > self.loading.batch_size
        )
        if self.trainer is not None and self.trainer.fit_loop.restarting:
            self._go_on(sampler, len(loader))
        return loader

    def _go_on(self, sampler: WindowSampler, batches: int) -> None:
        """Set the sampler to where the interrupted epoch stopped, or to the next epoch where none of it is left.

        `processed` and not `ready`: a batch that Ctrl-C or an error cut short has not been used.
        """
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        done = loop.epoch_loop.batch_progress.current.processed
        if done < batches:
            sampler.skip = done * self.loading.batch_size
        else:
            sampler.set_epoch(loop.epoch_progress.current.started)

    def val_dataloader(self) -> DataLoader | list:
        if "val" not in self.windows:
            return []
        windows = self.windows["val"]
        return self._loader(windows, ShardSampler(len(windows), **self._ranks()), self.loading.eval_batch_size)

    def test_dataloader(self) -> DataLoader:
        windows = self.windows["test"]
        return self._loader(windows, ShardSampler(len(windows), **self._ranks()), self.loading.eval_batch_size)

    def identities(self, side: str) -> list[str]:
        """Who is on a side; empty where it is not open."""
        return sorted({clip.identity for clip in self.windows[side].clips}) if side in self.windows else []

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()

    def _loader(self, windows: Windows, sampler, batch_size: int, drop_last: bool = False) -> DataLoader:
        workers = self.loading.workers
        return DataLoader(
            windows,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            persistent_workers=workers > 0,
            pin_memory=False,
        )

    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
