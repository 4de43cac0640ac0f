"""HDTFDataModule: which clips train, validate and test, and the loaders of their windows."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import lightning as L
from torch.utils.data import DataLoader

from difftalk_pl.data.clips import Clip, open_clips, read_dataset
from difftalk_pl.data.dataset import (
    EVALUATION,
    FRAME,
    GENERATION,
    MASKED_FRAME,
    TRAINING,
    WindowDataset,
)
from difftalk_pl.data.features.kinds import KINDS, FeatureModel
from difftalk_pl.data.features.stored import check_features, read_record
from difftalk_pl.data.features.windows import AROUND, FPS
from difftalk_pl.data.latents import LatentCache
from difftalk_pl.data.loaders import Loading, clip_loader, window_loader
from difftalk_pl.data.masks import MaskName, MaskPolicy
from difftalk_pl.data.quality import keep_clips
from difftalk_pl.data.references import ReferencePolicy, ReferenceRule, read_face
from difftalk_pl.data.sampler import WindowSampler
from difftalk_pl.data.splits import Split
from difftalk_pl.data.sync import SyncData, SyncWindows, open_sides
from difftalk_pl.errors import UserError

log = logging.getLogger(__name__)


class HDTFDataModule(L.LightningDataModule):
    """WindowDataset of a prepared dataset: HDTF's, or any other.

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
        if features not in KINDS:
            raise UserError(f"features {features!r}: expected one of {', '.join(KINDS)}")
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
        self._trained_features = FeatureModel("", "", 0)  # of a loaded checkpoint

    def setup(self, stage: str) -> None:
        """Divide the clips, open the Datasets and check that they fit the model; reads clips.csv, no frame."""
        sides = self.split.apply(open_clips(self.root))
        self.sides = {side: keep_clips(self.root, clips, self.keep) for side, clips in sides.items()}
        log.info("clips: %s", ", ".join(f"{side} {len(clips)}" for side, clips in self.sides.items()))
        if self.contents == "sync":
            self.windows = dict(open_sides(self.sides, stage, self.sync, self.seed))
            return
        if stage == "predict" and self.contents == "frames":
            raise UserError("predict needs a diffusion model (stage 2); test shows what an autoencoder reconstructs")
        trains = stage in ("fit", "validate")
        used = {"fit": ["train", "val"], "validate": ["val"]}.get(stage, ["test"])
        used = [side for side in used if self.sides[side] or side != "val"]
        if empty := [side for side in used if not self.sides[side]]:
            raise UserError(f"{self.root}: no clip on the {empty[0]} side; change data.split")
        if self.contents != "frames":
            self._check_features([clip for side in used for clip in self.sides[side]])
        self.windows = {side: self._loss_windows(side) for side in used} if trains else {}
        if trains and ("val" not in used or (stage == "fit" and not self.val_clips)):
            self.evaluated = None
        elif stage == "fit":
            self.evaluated = self.evaluation("val", self.val_clips, max(round(self.val_seconds * FPS), 1))
        else:
            self.evaluated = self.evaluation(used[0], control=stage != "predict")

    def _loss_windows(self, side: str) -> WindowDataset:
        parts = {"frames": FRAME, "latents": TRAINING, "images": GENERATION}[self.contents]
        return WindowDataset(
            self.sides[side],
            parts,
            mask=self.mask,
            features=self.features,
            latents=self._latents(self.sides[side]) if "latents" in parts else None,
            reference=self.rule,
            seed=self.seed,
            fixed=side != "train",
            frames_per_clip=self.frames_per_clip[side],
            smoothing=self.smoothing,
        )

    def evaluation(
        self, side: str, clips: int | None = None, frames: int | None = None, control: bool = False
    ) -> WindowDataset:
        """Open whole clips; a frame without a reference far enough away takes the furthest one.

        Args:
            clips: the first so many of the side.
            frames: of each, from its beginning; by default val_frames or test_frames.
            control: with the audio of other moments.
        """
        policy = ReferencePolicy.parse(self.reference)
        return WindowDataset(
            self.sides[side][:clips],
            MASKED_FRAME if self.contents == "frames" else EVALUATION if control else GENERATION,
            mask=self.mask,
            features=self.features,
            reference=ReferenceRule(self.rule.min_gap, lenient=True, source=policy.frames),
            seed=self.seed,
            fixed=True,
            frames_per_clip=frames or self.frames_per_clip[side],
            smoothing=self.smoothing,
            picture=None if policy.file is None else read_face(policy.file, self.frame_size),
        )

    def _check_features(self, clips: list[Clip]) -> None:
        """Only the first readable file is opened: a damaged clip costs itself alone, later."""
        check_features(self.root, clips, self.features)
        for clip in clips:
            with suppress(UserError):
                channels = clip.features(self.features).shape[1]
                break
        else:
            return
        if self.audio_channels not in (None, channels):
            raise UserError(
                f"data.features {self.features} has {channels} channels, model.difftalk.conditioning.audio_channels is "
                f"{self.audio_channels}: set it to {channels}"
            )

    def _latents(self, clips: list[Clip]) -> LatentCache:
        if self.codec is None:
            raise UserError("data.contents latents: the model has no autoencoder whose latents could be read")
        cache = LatentCache(self.root, self.codec, self.mask.name)
        cache.check(clips)
        return cache

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
        windows, loading = self.windows["train"], self.loading
        sampler = WindowSampler(len(windows), self.seed, *self._rank())
        loader = window_loader(windows, sampler, loading, loading.batch_size, len(sampler) > loading.batch_size)
        if self.trainer is not None:
            sampler.set_epoch(self.trainer.current_epoch)
            if self.trainer.fit_loop.restarting:
                self._skip_used_batches(sampler, len(loader))
        return loader

    def _skip_used_batches(self, sampler: WindowSampler, batches: int) -> None:
        """Continue where the interrupted epoch stopped, or with the next epoch if none of it is left.

        `processed` and not `ready`: a batch that Ctrl-C or an error interrupted has not been used.
        """
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        used = loop.epoch_loop.batch_progress.current.processed
        if used < batches:
            sampler.skip = used * self.loading.batch_size
        else:
            sampler.set_epoch(loop.epoch_progress.current.started)

    def val_dataloader(self) -> list[DataLoader]:
        """Return the loader of the loss, and that of whole clips unless there are none to generate."""
        if "val" not in self.windows:
            return []
        windows, (rank, world_size) = self.windows["val"], self._rank()
        own = range(rank, len(windows), world_size)
        loss = window_loader(windows, own, self.loading, self.loading.eval_batch_size)
        return [loss] if self.evaluated is None else [loss, self.test_dataloader()]

    def test_dataloader(self) -> DataLoader:
        """Return the loader of whole clips."""
        assert self.evaluated is not None
        together = self.loading.eval_batch_size if self.sequential else 1
        return clip_loader(self.evaluated, self.loading, together, *self._rank())

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()

    def _rank(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def own_clips(self, windows: WindowDataset) -> range:
        """Numbers of the clips that this process evaluates."""
        rank, world_size = self._rank()
        return range(rank, len(windows.clips), world_size)

    def evaluation_loader(self, windows: WindowDataset, indices: Sequence[int]) -> DataLoader:
        """Batches of these windows, in their order."""
        return DataLoader(windows, self.loading.eval_batch_size, sampler=indices)

    def state_dict(self) -> dict[str, Any]:
        """Return what a model must find in its data again, and the people that it was trained on."""
        model = read_record(self.root).get(self.features, self._trained_features)
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
        self._trained_features = FeatureModel(state_dict["features_model"], state_dict["features_sha256"], 0)
