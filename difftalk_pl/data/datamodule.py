"""HDTFDataModule: which clips train, validate and test, and the loaders of their windows."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips, read_dataset
from difftalk_pl.data.dataset import EVALUATION, FRAME, GENERATION, MASKED_FRAME, TRAINING, ClipBatches, WindowDataset
from difftalk_pl.data.features.kinds import FeatureModel
from difftalk_pl.data.features.stored import check_features, read_record
from difftalk_pl.data.features.windows import AROUND, FPS
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.quality import keep_clips
from difftalk_pl.data.references import ReferencePolicy, ReferenceRule
from difftalk_pl.data.sampler import WindowSampler
from difftalk_pl.data.splits import Split
from difftalk_pl.data.sync import ClipPart, SyncData, SyncWindows
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)


@dataclass
class Loading:
    """How windows become batches; sizes are windows a step and process.

    Args:
        batch_size: in training.
        eval_batch_size: in validation and test.
        workers: loader processes of each process.
    """

    batch_size: int = 16
    eval_batch_size: int = 16
    workers: int = 2


class HDTFDataModule(L.LightningDataModule):
    """Windows of a prepared dataset: HDTF's, or any other.

    Args:
        root: a folder that prepare or synthesize wrote.
        contents: frames for the autoencoder, latents for diffusion, images for diffusion without a cache, or sync for
            a SyncNet.
        features: the kind of audio features: mfcc, deepspeech, wav2vec2 or hubert.
        mask: the hidden region; the model must be trained and used with one policy.
        min_reference_gap: frames between a target and its reference.
        smoothing: frames before and after the target whose audio windows the model sees; linked from the model.
        reference: frames that show the person while evaluating; linked from the model's sampler.
        audio_channels: width of the features that the model takes; linked from the model.
        codec: hash of the autoencoder whose cached latents are read; linked from the model.
        sequential: frames are generated from the one before, so that clips are interleaved; linked from the model.
        val_frames: only the first so many targets of every validation clip.
        test_frames: the same for test.
        val_clips: clips that are generated at a validation while fit runs; 0 for none.
        val_seconds: of each of them, from its beginning.
        sync: the inputs of a SyncNet, for contents sync.
        seed: of the order and of the references.
        split: which clips train, validate and test.
        keep: condition on the columns of quality.csv that a clip has to fulfil, such as yaw < 35 and sharpness > 20.
        loading: batch sizes and workers.
    """

    def __init__(
        self,
        root: Path,
        contents: Literal["frames", "latents", "images", "sync"] = "latents",
        features: str = "mfcc",
        mask: MaskName = "mouth_safe",
        min_reference_gap: int = 60,
        smoothing: tuple[int, int] = AROUND,
        reference: str = "each",
        audio_channels: int | None = None,
        codec: str | None = None,
        sequential: bool = False,
        val_frames: int | None = None,
        test_frames: int | None = None,
        val_clips: int = 2,
        val_seconds: float = 2.0,
        sync: SyncData = SyncData(),
        seed: int = 0,
        split: Split = Split(),
        keep: str | None = None,
        loading: Loading = Loading(),
    ) -> None:
        super().__init__()
        self.root, self.contents, self.features = Path(root), contents, features
        self.mask, self.rule = MaskPolicy(mask), ReferenceRule(min_reference_gap)
        self.smoothing, self.reference, self.audio_channels = smoothing, reference, audio_channels
        self.codec, self.sequential = codec, sequential
        self.frames_per_clip = {"train": None, "val": val_frames, "test": test_frames}
        self.val_clips, self.val_seconds = val_clips, val_seconds
        self.sync, self.seed, self.split, self.keep, self.loading = sync, seed, split, keep, loading
        self.sides: dict[str, list[Clip]] = {}
        self.windows: dict[str, WindowDataset | SyncWindows] = {}  # of the loss
        self.evaluated: WindowDataset | None = None  # whole clips
        self.trained_on: list[str] | None = None  # identities, of a loaded checkpoint

    def setup(self, stage: str) -> None:
        """Divide the clips, open the Datasets and check that they fit the model; reads clips.csv, no frame."""
        sides = self.split.apply(open_clips(self.root))
        self.sides = {side: keep_clips(self.root, clips, self.keep) for side, clips in sides.items()}
        log.info("clips: %s", ", ".join(f"{side} {len(clips)}" for side, clips in self.sides.items()))
        if self.contents == "sync":
            self.windows = self._sync_windows(stage)
            return
        if stage == "predict" and self.contents == "frames":
            raise UserError("predict needs a diffusion model (stage 2); test shows what an autoencoder reconstructs")
        needed, evaluated = {"fit": ("train", "val"), "validate": ("val", "val")}.get(stage, ("test", "test"))
        if not self.sides[needed]:
            raise UserError(f"{self.root}: no clip on the {needed} side; change data.split")
        if self.contents != "frames":
            self._check_features([*self.sides[needed], *self.sides[evaluated]])
        losses = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ())
        self.windows = {side: self._loss_windows(side) for side in losses if self.sides[side]}
        clips, frames = self.sides[evaluated], self.frames_per_clip[evaluated]
        if stage == "fit":
            clips, frames = clips[: self.val_clips], max(round(self.val_seconds * FPS), 1)
        policy = ReferencePolicy.parse(self.reference)
        options = {
            "reference": ReferenceRule(self.rule.min_gap, lenient=True, source=policy.source),
            "picture": policy.picture(self.frame_size),
            "fixed": True,
        }
        whole = EVALUATION if stage in ("validate", "test") else GENERATION
        parts = MASKED_FRAME if self.contents == "frames" else whole
        self.evaluated = self._open(clips, parts, frames, **options) if clips else None

    def _sync_windows(self, stage: str) -> dict[str, WindowDataset | SyncWindows]:
        train, val, held_out = self.sides["train"], self.sides["val"], self.sync.holdout_seconds > 0
        if stage not in ("fit", "validate"):
            raise UserError(f"{stage} is not for a SyncNet: validate tells its accuracy; score and test judge with it")
        if held_out and val:
            raise UserError("data.sync.holdout_seconds takes the place of validation clips: set data.split.val 0")
        windows: dict[str, WindowDataset | SyncWindows] = {}
        if stage == "fit":
            windows["train"] = SyncWindows(train, self.sync, "first", self.seed)
        if held_out or val:
            part: ClipPart = "last" if held_out else "all"
            windows["val"] = SyncWindows(train if held_out else val, self.sync, part, self.seed, fixed=True)
        return windows

    def _check_features(self, clips: list[Clip]) -> None:
        check_features(self.root, clips, self.features)
        channels = self.audio_channels
        for clip in clips:
            with suppress(UserError):  # a damaged clip is counted as failed later
                channels = clip.features(self.features).shape[1]
                break
        if self.audio_channels not in (None, channels):
            raise UserError(
                f"data.features {self.features} has {channels} channels, model.difftalk.conditioning.audio_channels is "
                f"{self.audio_channels}: set it to {channels}"
            )

    def _loss_windows(self, side: str) -> WindowDataset:
        cache = None
        if self.contents == "latents":
            if self.codec is None:
                raise UserError("data.contents latents: the model has no autoencoder whose latents could be read")
            cache = LatentCache(self.root, self.codec, self.mask.name)
            cache.check(self.sides[side])
        parts = {"frames": FRAME, "latents": TRAINING, "images": GENERATION}[self.contents]
        options = {"latents": cache, "reference": self.rule, "fixed": side != "train"}
        return self._open(self.sides[side], parts, self.frames_per_clip[side], **options)

    def _open(self, clips: list[Clip], parts: Any, frames: int | None, **options: Any) -> WindowDataset:
        common: dict[str, Any] = {"mask": self.mask, "features": self.features, "smoothing": self.smoothing}
        return WindowDataset(clips, parts, frames_per_clip=frames, seed=self.seed, **common, **options)

    @property
    def frame_size(self) -> int:
        """The side of the frames in pixels."""
        return read_dataset(self.root).size

    @property
    def evaluation_clips(self) -> list[tuple[Clip, int]]:
        """Every clip, of all ranks, that the current stage generates, and how many frames of it."""
        windows = self.evaluated
        return [] if windows is None else [(clip, len(windows.indices(n))) for n, clip in enumerate(windows.clips)]

    def train_dataloader(self) -> DataLoader:
        """Return the loader of training, from the batch after the last one that an interrupted epoch has used."""
        windows, size, trainer = self.windows["train"], self.loading.batch_size, self.trainer
        sampler = WindowSampler(len(windows), self.seed, *self._rank())
        loader = self._loader(windows, sampler, size, drop_last=len(sampler) > size)
        if trainer is None:
            return loader
        sampler.set_epoch(trainer.current_epoch)
        loop: Any = trainer.fit_loop
        if loop.restarting:  # `processed` and not `ready`: an interrupted batch has not been used
            used = loop.epoch_loop.batch_progress.current.processed
            if used < len(loader):
                sampler.skip = used * size
            else:
                sampler.set_epoch(loop.epoch_progress.current.started)
        return loader

    def val_dataloader(self) -> list[DataLoader]:
        """Return the loader of the loss, and that of whole clips unless there are none to generate."""
        if "val" not in self.windows:
            return []
        windows, (rank, ranks) = self.windows["val"], self._rank()
        loss = self._loader(windows, range(rank, len(windows), ranks), self.loading.eval_batch_size)
        return [loss] if self.evaluated is None else [loss, self.test_dataloader()]

    def test_dataloader(self) -> DataLoader:
        """Return the loader of whole clips: every ranks-th clip, in equally many batches on all ranks.

        One worker at most, so that it knows which clips have failed.
        """
        windows, size, (rank, ranks) = self.evaluated, self.loading.eval_batch_size, self._rank()
        assert windows is not None
        dealt = [range(first, len(windows.clips), ranks) for first in range(ranks)]
        batches = [ClipBatches(windows, clips, size, size if self.sequential else 1) for clips in dealt]
        batches[rank].length = max(map(len, batches))
        return DataLoader(batches[rank], batch_size=None, num_workers=min(self.loading.workers, 1))

    predict_dataloader = test_dataloader

    def _loader(self, windows: Any, sampler: Any, batch_size: int, drop_last: bool = False) -> DataLoader:
        workers: Any = {"num_workers": self.loading.workers, "persistent_workers": self.loading.workers > 0}
        return DataLoader(windows, batch_size, sampler=sampler, drop_last=drop_last, **workers)

    def _rank(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def state_dict(self) -> dict[str, Any]:
        """Return what a model must find in its data again, and the people that it was trained on."""
        model = read_record(self.root).get(self.features, FeatureModel("", ""))
        return {
            "features": self.features,
            "mask": self.mask.name,
            "size": self.frame_size,
            "features_model": model.name,
            "features_sha256": model.sha256,
            "sync_crop": self.sync.crop,
            "trained_on": sorted({clip.identity for clip in self.sides.get("train", ())}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the people of the training. Features of unknown origin are taken on trust.

        Raises:
            UserError: the model of the checkpoint depends on something that the data do not have.
        """
        here, both = self.state_dict(), ["features", "mask", "size"]
        if "" not in (state_dict["features_sha256"], here["features_sha256"]):
            both.append("features_sha256")
        for key in {"frames": [], "sync": ["sync_crop"]}.get(self.contents, both):
            if state_dict[key] != here[key]:
                raise UserError(f"the checkpoint was trained on data with {key} {state_dict[key]}, not {here[key]}")
        self.trained_on = state_dict["trained_on"]
